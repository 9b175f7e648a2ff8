//! `serve --local-only`: connections, API and page, and nothing but this disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::front::{self, Behind, Front};
use super::observed::{Observed, Observer};
use super::signals;
use crate::config::{ApiSettings, Observe, Place};
use crate::error::Result;
use crate::host::Real;
use crate::http::api::CloudStorage;
use crate::runner;
use crate::runner::service::{Home, Service};
use crate::sync::control::Control;
use crate::sync::health::Health;
use crate::sync::journal::blocking;
use crate::sync::local_only::LocalOnly;
use crate::sync::rootdir::RootDir;

/// Runs until a signal.
pub(super) async fn run(
    place: Place,
    api: ApiSettings,
    observe: Observe,
    settings: runner::Settings,
    patience: Duration,
) -> Result<u8> {
    let stop = signals::listen()?;
    let front = Front::open(api, front::Default::SERVICE)?;
    let observer = Observer::new(observe)?;
    let (path, layout) = (place.root.clone(), place.layout.clone());
    let keeper =
        blocking(move || LocalOnly::new(RootDir::open(&path, Arc::new(Real))?, layout, Arc::new(Real)));
    let control: Arc<dyn Control> = Arc::new(keeper.await??);
    warn!("--local-only: nothing is stored anywhere else; a lost disk is a lost session");
    let home = Home { root: place.root, layout: place.layout };
    let service = Service::start(settings, home, Arc::clone(&control));
    let servers = CancellationToken::new();
    let _stop_servers = servers.clone().drop_guard();
    let well = Health { alive: true, ready: true, lease_lost: false, why: BTreeSet::new() };
    let health = watch::Sender::new(well);
    // Sessions of this disk alone are told of by their connections.
    let (metrics, told) = observer.watch(Observed {
        sessions: Some((Arc::clone(&control), watch::channel(()).1)),
        health: health.subscribe(),
        counted: None,
        whatsapp: Some(Arc::clone(&service) as _),
    });
    let behind = Behind {
        control,
        whatsapp: Some(Arc::clone(&service) as _),
        health: health.subscribe(),
        probes: Some(metrics),
        cloud: CloudStorage::Disabled,
    };
    front.answer(behind, &servers)?;
    stop.orderly.cancelled().await;
    service.close(patience).await;
    told.close(None, Duration::MAX).await;
    Ok(0)
}
