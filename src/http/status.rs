//! Which HTTP status a code of ours is.

use axum::http::StatusCode;

use crate::error::Code;

/// The status of an answer that says `code`.
pub(super) fn status_of(code: Code) -> StatusCode {
    match code {
        Code::NotFound | Code::NoSession => StatusCode::NOT_FOUND,
        Code::Conflict
        | Code::Held
        | Code::RootLocked
        | Code::LeaseHeld
        | Code::LeaseLost
        | Code::OtherEngine
        | Code::NotConnected => StatusCode::CONFLICT,
        Code::Usage | Code::BadSessionId => StatusCode::BAD_REQUEST,
        Code::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Unreachable | Code::Unauthorized => StatusCode::BAD_GATEWAY,
        Code::NotFlushed => StatusCode::GATEWAY_TIMEOUT,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_a_success_and_what_is_ours_to_mend_is_not_called_the_callers_fault() {
        for code in Code::ALL {
            assert!(status_of(code).as_u16() >= 400, "{code:?}");
        }
        for ours in [Code::BadRoot, Code::SchemaMissing, Code::BucketPublic, Code::Damaged, Code::Internal] {
            assert_eq!(status_of(ours), StatusCode::INTERNAL_SERVER_ERROR, "{ours:?}");
        }
    }
}
