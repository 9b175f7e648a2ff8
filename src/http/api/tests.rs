//! The API over fakes of both sides.

#[cfg(feature = "runner")]
mod events;
mod fakes;
mod limits;
#[cfg(feature = "runner")]
mod old_client;
#[cfg(feature = "runner")]
mod openapi;
#[cfg(feature = "runner")]
mod refusals;
mod sidecar;
#[cfg(feature = "runner")]
mod users;
