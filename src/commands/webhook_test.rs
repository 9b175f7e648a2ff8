//! `webhook-test`: one signed test event, and what the receiver makes of it.

use std::sync::Arc;

use serde::Serialize;

use super::output::Output;
use crate::cli::WebhookTest;
use crate::config::{WebhookConfig, environment};
use crate::error::{Code, Error, Result};
use crate::host::Real;
use crate::webhook::{Kind, Receiver};

#[derive(Serialize)]
struct Report {
    event: &'static str,
    status: u16,
    signed: bool,
}

/// Sends it.
pub(super) async fn run(args: &WebhookTest, out: Output) -> Result<()> {
    let config = WebhookConfig::new(&args.webhook, args.ca_file.as_ref(), &environment)?;
    let config = config.ok_or_else(|| {
        Error::new(Code::Usage, "there is no receiver: give its URL (--webhook-url, SIDECAR_WEBHOOK_URL)")
    })?;
    let receiver = Receiver::new(&config, Arc::new(Real))?;
    let status = receiver.ping().await?;
    let report = Report { event: Kind::Ping.as_str(), status, signed: config.key.is_some() };
    out.result(&report, |report| format!("{} took {} ({status})", receiver.name(), report.event))
}
