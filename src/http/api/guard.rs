//! What every call passes before its handler, and every answer after it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::call::ids;
use super::pace::{Payer, peer};
use super::problem::Problem;
use super::{Api, Shared};
use crate::http::auth::{Access, Auth, Caller, Refusal, from_here};

/// Bytes of all headers; a long token of a user has some 4 KiB.
const HEADER_LIMIT: usize = 32 << 10;

/// Who calls, how often, and whether they may see the user in the path.
pub async fn guard(State(api): State<Shared>, request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let peer = peer(parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()));
    let auth = &api.config.auth;
    if matches!(auth, Auth::Local) && !from_here(&parts.uri, &parts.headers) {
        return Err(Problem::foreign_page());
    }
    let ask = || api.questions.count(&peer).is_ok();
    let access = match auth.access(&parts.headers, &ask).await {
        Ok(access) => access,
        Err(refusal @ Refusal::Invalid(_)) => {
            // What is tried again and again is told to wait, but whoever has a good one is never kept out.
            api.failures.count(&peer).map_err(Problem::rate_limited)?;
            return Err(refusal.into());
        }
        Err(refusal) => return Err(refusal.into()),
    };
    match auth {
        // Behind a proxy all come from one address: what is in front decides, also how often.
        Auth::Open => Ok(()),
        Auth::Local => api.calls.count(&Payer::Peer(peer)),
        Auth::Guarded(_) => api.calls.count(&Payer::Caller(access.caller.clone())),
    }
    .map_err(Problem::rate_limited)?;
    let (user, _) = ids(&mut parts, &api).await?;
    if user.is_some_and(|user| !access.caller.may_see(&user)) {
        return Err(Problem::not_found());
    }
    parts.extensions.insert(access);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// Behind the guard: only whoever may do everything. To all others there is nothing here.
pub async fn operator(request: Request, next: Next) -> Result<Response, Problem> {
    match request.extensions().get::<Access>() {
        Some(Access { caller: Caller::Operator, .. }) => Ok(next.run(request).await),
        _ => Err(Problem::not_found()),
    }
}

/// Ends what takes too long. A stream counts until it begins.
pub async fn within(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timeout().into_response(),
    }
}

/// Around everything: no large headers in, nothing that a cache may keep or a browser may guess at out.
pub async fn finish(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let private = path == "/api" || path.starts_with("/api/");
    let mut response = if size(request.headers()) + request.uri().to_string().len() > HEADER_LIMIT {
        Problem::headers_too_large().into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    if private {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

impl Api {
    /// How long a request that waits for storage may take.
    pub(super) fn long(&self) -> Duration {
        self.config.sync_deadline + super::SLACK
    }
}
