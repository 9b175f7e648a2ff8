//! The page for people: files that are compiled in, and nothing from anywhere else.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing but the page's own files runs or is asked, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPTS: [(&str, &str); 8] = [
    ("/page.js", include_str!("page/page.js")),
    ("/page/api.js", include_str!("page/page/api.js")),
    ("/page/ask.js", include_str!("page/page/ask.js")),
    ("/page/card.js", include_str!("page/page/card.js")),
    ("/page/dom.js", include_str!("page/page/dom.js")),
    ("/page/history.js", include_str!("page/page/history.js")),
    ("/page/passkey.js", include_str!("page/page/passkey.js")),
    ("/page/words.js", include_str!("page/page/words.js")),
];

/// `/`, `/page.css`, `/page.js` and the modules below `/page/`.
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
    let pages = Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")));
    SCRIPTS
        .into_iter()
        .fold(pages, |pages, (path, text)| pages.route(path, file("text/javascript; charset=utf-8", text)))
}
