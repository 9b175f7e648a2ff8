//! `status` and `history`: of the process that holds the root, which needs no key; else from the bucket.

use super::bucket::Bucket;
use super::output::Output;
use super::{holder, show, status};
use crate::cli::{self, Look};
use crate::config::Place;
use crate::error::{Code, Error, Result};
use crate::host::{Host as _, Real};
use crate::sync::control::Control as _;
use crate::sync::points;

/// `status`
pub(super) async fn status(args: &cli::Status, out: Output) -> Result<()> {
    let look = &args.look;
    if args.all {
        return out.result(&status::project(look).await?, show::project);
    }
    let place = Place::new(&look.place)?;
    let key = place.target(look.key.as_ref())?;
    let mut report = match holder::find(&place.root)? {
        Some(holder) => holder.status().await?,
        None => status::idle(look).await?,
    };
    if let Some(key) = &key {
        report.sessions.retain(|session| session.session == key.to_string());
    }
    out.result(&report, |report| show::status(report, Real.now()))
}

/// `history`
pub(super) async fn history(look: &Look, out: Output) -> Result<()> {
    let place = Place::new(&look.place)?;
    let report = if let Some(holder) = holder::find(&place.root)? {
        let key = place.target(look.key.as_ref())?;
        let key = key
            .ok_or_else(|| Error::new(Code::Usage, "name the session as USER/ID: the root can hold many"))?;
        holder.history(&key).await?
    } else {
        let bucket = Bucket::open(look).await?;
        points::history(&*bucket.store, &bucket.session().await?).await?
    };
    out.result(&report, show::history)
}
