//! The API over fakes of both sides.

mod fakes;
mod limits;
mod sidecar;
#[cfg(feature = "runner")]
mod events;
#[cfg(feature = "runner")]
mod old_client;
#[cfg(feature = "runner")]
mod openapi;
#[cfg(feature = "runner")]
mod refusals;
#[cfg(feature = "runner")]
mod users;
