//! The page for people: files that are compiled in, and nothing from anywhere else.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing but the page's own files runs or is asked, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Every file: its path, its type, and what is in it.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page.css", STYLE, include_str!("page/page.css")),
    ("/page/api.js", SCRIPT, include_str!("page/page/api.js")),
    ("/page/ask.js", SCRIPT, include_str!("page/page/ask.js")),
    ("/page/card.js", SCRIPT, include_str!("page/page/card.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/page/dom.js")),
    ("/page/history.js", SCRIPT, include_str!("page/page/history.js")),
    ("/page/passkey.js", SCRIPT, include_str!("page/page/passkey.js")),
    ("/page/words.js", SCRIPT, include_str!("page/page/words.js")),
];

/// The page and its files.
pub fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [
                (CONTENT_TYPE, kind),
                (CONTENT_SECURITY_POLICY, POLICY),
                (REFERRER_POLICY, "no-referrer"),
                // Asked for again after each deployment.
                (CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        })
    };
    FILES.iter().fold(Router::new(), |router, (path, kind, text)| router.route(path, file(kind, text)))
}
