//! A process that keeps sessions in which nothing happens: how soon it is ready, and what it costs to let it stand.

use std::time::Duration;

use tokio::time::sleep;

use crate::world::{World, binary};
use crate::{Result, fixtures};

/// How long it is watched: six renewals of a lease, and what the runtime does by itself.
const WATCHED: Duration = Duration::from_mins(1);

/// One line for each number of sessions, all of them the small tree.
pub async fn measure(numbers: &[usize]) -> Result<()> {
    let size = binary().metadata()?.len();
    println!("\nbinary: {}.{} MB\n", size / 1_000_000, size / 100_000 % 10);
    println!(
        "| sessions | ready after s | CPU s until then | resident MiB | CPU ms a minute | requests a minute |"
    );
    println!("|--:|--:|--:|--:|--:|--:|");
    for &number in numbers {
        let dir = tempfile::tempdir()?;
        let world = World::new(dir.path(), Duration::ZERO).await?;
        let (first, second) = (world.root("first"), world.root("second"));
        for session in 1..=number {
            fixtures::unpack(fixtures::SMALL, &first.join(format!("u1/s{session}")));
        }
        let apart = ["--probe-listen", "off", "--listen", "off", "--mirror", "off"];
        // What is there already is committed by its first start.
        world.run_many(&first, number, &apart).await?.0.stop().await?;
        let (run, start) = world.run_many(&second, number, &apart).await?;
        let (since, before) = (world.since(), run.usage());
        // Long enough for the first look at the trees to be over.
        sleep(WATCHED / 2).await;
        let (settled, looked) = (run.usage(), world.cost(&since).requests);
        sleep(WATCHED).await;
        let (after, requests) = (run.usage(), world.cost(&since).requests - looked);
        println!(
            "| {number} | {:.2} | {:.2} | {} | {} | {requests} |",
            start.wall.as_secs_f64(),
            before.cpu.as_secs_f64(),
            after.resident.div_ceil(1024),
            (after.cpu.saturating_sub(settled.cpu)).as_millis(),
        );
        run.stop().await?;
    }
    Ok(())
}
