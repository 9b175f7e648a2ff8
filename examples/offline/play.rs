//! The self-test: the whole life without an onlooker.

use anyhow::{Result, ensure};

use crate::stage::{Act, PATIENCE, SESSION, Stage, Told, USER};
use crate::whatsapp::Seen;

/// Plays it through.
pub async fn play(stage: &Stage) -> Result<()> {
    stage.perform(Act::Start).await?;
    stage.until("the service answers", |told| told.answers).await?;
    stage.post(&format!("whatsapp/connect/{USER}/{SESSION}")).await?;
    let shows = |told: &Told| told.sessions.get(SESSION).is_some_and(|status| status["qr"].is_object());
    stage.until("a QR code", shows).await?;
    stage.perform(Act::Scan).await?;
    stage.until("linked", working).await?;
    hears(stage).await?;
    // Killed before this, it would ask for the next message once more; so the restored keys alone must do.
    stage.post(&format!("sessions/{USER}/{SESSION}/sync")).await?;

    stage.perform(Act::Kill).await?;
    stage.until("the end of the stream", |told| !told.answers).await?;
    stage.perform(Act::LoseDisk).await?;
    ensure!(!stage.service.root.exists(), "the directory is still there");
    // Written while nobody listens: it opens only with the keys that were restored.
    let (_, ids) = stage.message().await?;
    let asked = stage.whatsapp.count(&Seen::AskedToPair);
    stage.perform(Act::Start).await?;
    stage.until("working again, with nothing on disk to begin with", working).await?;
    let arrived = |seen: &[Seen]| ids.iter().all(|id| seen.contains(&Seen::Acknowledged(id.clone())));
    stage.whatsapp.wait_until(PATIENCE, arrived).await?;
    hears(stage).await?;

    ensure!(stage.whatsapp.count(&Seen::AskedToPair) == asked, "a second QR code was shown");
    ensure!(stage.phone.devices().len() == 1, "another device was linked");
    let again = |seen: &Seen| matches!(seen, Seen::AskedAgain(_));
    ensure!(!stage.whatsapp.seen().iter().any(again), "a message could not be opened with the restored keys");
    stage.service.stop().await?;
    stage.say("all of it works: the same device, no second QR code, no message lost");
    Ok(())
}

fn working(told: &Told) -> bool {
    told.sessions.get(SESSION).is_some_and(|status| status["state"] == "WORKING")
}

/// A message reaches who listens at the API.
async fn hears(stage: &Stage) -> Result<()> {
    let (text, _) = stage.message().await?;
    stage.until("a message at the API", |told| told.messages.contains(&text)).await
}
