//! What was measured, and the table of it.

use std::time::Duration;

/// What one job took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// HTTP requests that reached storage.
    pub requests: u64,
    /// Bytes to storage, with heads.
    pub up: u64,
    /// Bytes from storage, with heads.
    pub down: u64,
    /// From the start of the job to its end.
    pub wall: Duration,
    /// Processor time of the sidecar, user and system; none where there is no sidecar.
    pub cpu: Option<Duration>,
    /// The sidecar's largest resident set so far, in KiB.
    pub peak: Option<u64>,
}

impl Cost {
    /// What all of a job costs of which `done` of `all` equal steps were measured.
    pub fn extrapolated(self, done: usize, all: usize) -> Self {
        let scale = |figure: u64| figure * all as u64 / done as u64;
        let factor = u32::try_from(all).unwrap_or(u32::MAX);
        let wall = self.wall * factor / u32::try_from(done).unwrap_or(u32::MAX);
        Self { requests: scale(self.requests), up: scale(self.up), down: scale(self.down), wall, ..self }
    }
}

/// The head of the table, and what its columns mean.
pub fn head() {
    println!("| tree | latency | job | requests | up | down | seconds | CPU s | peak MiB |");
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|");
}

/// One line.
pub fn row(tree: &str, latency: Duration, job: &str, cost: Cost) {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    println!(
        "| {tree} | {} ms | {job} | {} | {} | {} | {:.2} | {} | {} |",
        latency.as_millis(),
        cost.requests,
        size(cost.up),
        size(cost.down),
        cost.wall.as_secs_f64(),
        or_dash(cost.cpu.map(|cpu| format!("{:.2}", cpu.as_secs_f64()))),
        or_dash(cost.peak.map(|kib| kib.div_ceil(1024).to_string())),
    );
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}
