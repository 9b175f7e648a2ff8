//! One line of the doctor's.

use serde::Serialize;

use crate::error::{Code, Error};

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but a person should look at it; or it could not be tried.
    Warn,
    /// Does not work, or is not safe.
    Fail,
}

/// What was looked at, what was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at; a contract.
    pub(super) name: &'static str,
    /// How it stands.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do; only where it is not as it should be.
    pub(super) advice: Option<String>,
    /// Of a failure: its word, and with it the exit code.
    pub(super) code: Option<Code>,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: None, code: None }
    }

    /// To be looked at.
    pub(super) fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, advice: Some(advice.into()), ..Self::ok(name, found) }
    }

    /// To be mended.
    pub(super) fn fail(
        name: &'static str,
        code: Code,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, code: Some(code), ..Self::warn(name, found, advice) }
    }

    /// The error that every other command would end with.
    pub(super) fn error(name: &'static str, error: &Error, advice: impl Into<String>) -> Self {
        Self::fail(name, error.code(), error.to_string(), advice)
    }

    /// For people, in one line.
    pub(super) fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        let advice = self.advice.as_ref().map(|advice| format!(" -> {advice}")).unwrap_or_default();
        format!("{verdict}  {}: {}{advice}", self.name, self.found)
    }
}
