//! An epoch, claimed in the bucket by moving an object onto its name.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::session::SessionKey;
use crate::store::{self, Kind, Put, Store, StoreError};

/// Who claims, and how its object is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The holder id of this process.
    pub holder: String,
    /// The content type that the bucket accepts, as for commits.
    pub content_type: String,
    /// The wall clock, for people who read the claim.
    pub now: Timestamp,
}

/// Whose an epoch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Ours.
    Won,
    /// Not ours, or not known to be: the next epoch is to be taken.
    Taken {
        /// The holder id in the claim, where it could be read.
        by: Option<String>,
    },
}

/// The content of a claim.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    holder: String,
    uuid: String,
    at: Timestamp,
}

/// Claims an epoch: of any number of claimers at most one is ever told that it won. // P5
///
/// The object is uploaded under a name of its own (which sorts below every id) and moved to `{epoch}.claim`.
/// It is never uploaded there: a slow upload overwrites what a move put in place.
///
/// # Errors
/// Where the temporary could not be written, or the move is refused for a reason that another epoch does not change.
/// An unclear move is no error but [`Claim::Taken`], unless the target says that we won.
pub async fn claim(
    store: &dyn Store,
    key: &SessionKey,
    epoch: u32,
    claimant: &Claimant,
) -> Result<Claim, StoreError> {
    let uuid = Uuid::new_v4().to_string();
    let prefix = key.history_prefix();
    let (temporary, target) = (format!("{prefix}.claim-{uuid}"), format!("{prefix}{epoch:08}.claim"));
    let body = Body { holder: claimant.holder.clone(), uuid: uuid.clone(), at: claimant.now };
    let body =
        Bytes::from(serde_json::to_vec(&body).expect("strings, and a time of this era, always serialise"));
    let how = Put { content_type: claimant.content_type.clone(), ..Put::default() };
    match store.put(&temporary, body, &how).await {
        Ok(()) => {}
        // Nobody else has this name: a retry found what the first try had written.
        Err(error) if error.kind == Kind::AlreadyExists => {}
        Err(error) => {
            clean(store, temporary).await;
            return Err(error);
        }
    }
    let Err(error) = store.rename(&temporary, &target).await else {
        return Ok(Claim::Won);
    };
    // A retry of a move that won finds no source, and without a clear answer anything may have happened: the
    // target knows.
    tracing::debug!(session = %key, epoch, %error, "a claim was not clearly answered");
    let claim = winner(store, &target, &uuid).await;
    if claim == Claim::Won {
        return Ok(claim);
    }
    clean(store, temporary).await;
    let may_be_tried_again =
        error.is_retryable() || matches!(error.kind, Kind::NotFound | Kind::AlreadyExists);
    if may_be_tried_again { Ok(claim) } else { Err(error) }
}

/// What the target's content says. While nothing can be read there our move may still land: then the epoch is
/// nobody's, and a higher one will be.
async fn winner(store: &dyn Store, target: &str, uuid: &str) -> Claim {
    let body = match store::read(store, target).await {
        Ok(body) => serde_json::from_slice::<Body>(&body).ok(),
        Err(_) => None,
    };
    match body {
        Some(body) if body.uuid == uuid => Claim::Won,
        other => Claim::Taken { by: other.map(|body| body.holder) },
    }
}

/// Also keeps a move that is still under way from landing. What stays behind is removed by retention.
async fn clean(store: &dyn Store, temporary: String) {
    if let Err(error) = store.remove(std::slice::from_ref(&temporary)).await {
        tracing::debug!(%error, "a temporary claim stays behind");
    }
}
