//! Parse, run, exit code.

use std::process::ExitCode;

use session_sidecar::telemetry;

/// Nearly all time is spent waiting: more threads than this only cost memory on a large node.
const THREADS: usize = 4;

fn main() -> ExitCode {
    telemetry::log_panics();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::print_line(&format!("error: cannot start the runtime: {error}"));
            return ExitCode::from(8);
        }
    };
    let code = runtime.block_on(session_sidecar::run(std::env::args_os()));
    // What still hangs in a read of a dead disk must not keep the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}
