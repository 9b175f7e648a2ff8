//! Logs on stderr, as text or JSON, with nothing in them that must not be read.
//!
//! Masking happens twice: every value is masked as it is formatted, and every line once more as it is written,
//! so that a careless log call, or one of a library, gives nothing away.

pub mod mask;

use std::fmt;
use std::io::{self, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Metadata, Span, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::values::LogFormat;
use crate::error::Error;
use crate::session::SessionKey;
pub use mask::{Masked, register_secret};

/// Progress bars of this process: a log line is written above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A time as logs show it: written out to the nanosecond it would be masked as a phone number.
#[must_use]
pub fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is logged when `RUST_LOG` does not say: crates that speak of their own workings at `info` only from `warn` on.
/// Those of WhatsApp use targets that are no paths.
const DEFAULT: &str = "info,tokio_postgres=warn,whatsapp_rust=warn,wacore=warn,waproto=warn,Client=warn,Bot=warn,\
    AppState=warn,Blocking=warn,Chatstate=warn,MessageQueue=warn,Mex=warn,PresenceHandler=warn,TcToken=warn,\
    UnifiedSession=warn,blocklist=warn,usync=warn";

/// Starts logging to stderr; `RUST_LOG` says what (default `info`). The first call of a process counts.
pub fn init(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, wrong) = match EnvFilter::try_new(&wanted) {
        Ok(filter) if !wanted.trim().is_empty() => (filter, None),
        Ok(_) => (EnvFilter::new(DEFAULT), None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let ansi = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    // Takes in what crates say through the `log` facade, too.
    let first = dispatch(format, filter, ansi, Stderr).try_init().is_ok();
    if let Some(error) = wrong.filter(|_| first) {
        tracing::warn!("RUST_LOG is not understood, `info` is used instead: {error}");
    }
}

/// Sends panics through the log, masked like all else; for `main`.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
}

/// The span that names a session in everything that is logged within it: once, however deep it lies within another.
#[must_use]
pub fn session_span(key: &SessionKey) -> Span {
    // Enabled at every level that shows anything at all.
    tracing::error_span!(parent: None, "session", id = %key)
}

/// The last word of a command that failed: one line on stderr, in the format of the logs.
pub fn report(error: &Error, format: LogFormat) {
    match format {
        LogFormat::Json => tracing::error!(code = error.code().as_str(), "{error}"),
        LogFormat::Text => print_line(&format!("error: {error}")),
    }
}

/// Writes a line for people to stderr, masked, above any progress bar.
pub fn print_line(line: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(Masking { sink: Stderr, json: false }, "{}", mask::numbers(line));
}

/// The progress bars of this process: log lines are written above them.
#[must_use]
pub fn bars() -> &'static MultiProgress {
    &BARS
}

fn dispatch<W>(format: LogFormat, filter: EnvFilter, ansi: bool, sink: W) -> Dispatch
where
    W: Write + Clone + Send + Sync + 'static,
{
    let json = format == LogFormat::Json;
    let writer = MaskingMaker { sink, json };
    let registry = tracing_subscriber::registry().with(filter).with(Capped);
    if json {
        let json = layer().json().flatten_event(true).with_current_span(false).with_span_list(true);
        registry.with(json.with_writer(writer)).into()
    } else {
        let text = layer().fmt_fields(Fields).with_target(false).with_ansi(ansi);
        registry.with(text.with_writer(writer)).into()
    }
}

/// What no `RUST_LOG` may ask for: these targets log pairing codes, phone numbers and identity keys.
struct Capped;

/// Targets by their beginning, and the most that is shown of them.
const CAPS: [(&str, LevelFilter); 4] = [
    ("Client/Pair", LevelFilter::WARN),
    ("Bot/Pair", LevelFilter::WARN),
    ("whatsapp_rust::pair", LevelFilter::WARN),
    ("wacore_libsignal", LevelFilter::OFF),
];

impl<S: Subscriber> Layer<S> for Capped {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let cap = CAPS.iter().find(|(target, _)| metadata.target().starts_with(target));
        cap.is_none_or(|(_, most)| metadata.level() <= most)
    }
}

/// Stderr, one write a call.
#[derive(Debug, Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().lock().write_all(buf))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Makes a [`Masking`] for every event.
#[derive(Debug, Clone)]
struct MaskingMaker<W> {
    sink: W,
    json: bool,
}

impl<W: Write + Clone> MakeWriter<'_> for MaskingMaker<W> {
    type Writer = Masking<W>;

    fn make_writer(&self) -> Self::Writer {
        Masking { sink: self.sink.clone(), json: self.json }
    }
}

/// Masks what passes; an event arrives in one piece.
struct Masking<W> {
    sink: W,
    json: bool,
}

impl<W: Write> Write for Masking<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(buf);
        let masked = if self.json { mask::json_line(&text).into() } else { mask::secrets(&text) };
        self.sink.write_all(masked.as_bytes())?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Formats fields as text: the message, then `name=value`, with strings masked and numbers as they are.
#[derive(Debug, Clone, Copy)]
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor { writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn field(&mut self, field: &Field, value: &dyn fmt::Display) {
        // Where a record of the `log` facade comes from; no field of ours.
        if field.name().starts_with("log.") {
            return;
        }
        let space = if std::mem::replace(&mut self.first, false) { "" } else { " " };
        let written = match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name if self.writer.has_ansi_escapes() => {
                write!(self.writer, "{space}\x1b[2m{name}=\x1b[0m{value}")
            }
            name => write!(self.writer, "{space}{name}={value}"),
        };
        self.result = self.result.and(written);
    }

    fn text(&mut self, field: &Field, text: &str) {
        // A file name may hold anything; a line of the log is one event.
        let mut line = String::with_capacity(text.len());
        for c in text.chars() {
            if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
        }
        self.field(field, &mask::numbers(&line));
    }
}

impl Visit for TextVisitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, &value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.field(field, &value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.field(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let dispatch = dispatch(format, EnvFilter::try_new(DEFAULT).unwrap(), false, sink.clone());
        tracing::dispatcher::with_default(&dispatch, log);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    const PHONE: &str = "5511999887766";
    const KEY: &str = "a-key-that-is-registered";

    fn careless() {
        register_secret(KEY);
        let key = SessionKey::new(PHONE, "default").unwrap();
        session_span(&key).in_scope(|| {
            let error = io::Error::other(format!("no route to {PHONE}@s.whatsapp.net with {KEY}"));
            let path = format!("keys/session-{PHONE}.0.json");
            tracing::warn!(
                bytes = 52_428_800_u64,
                path,
                ?key,
                error = &error as &dyn std::error::Error,
                "{key}\n{KEY}"
            );
        });
    }

    #[test]
    fn no_phone_and_no_secret_reaches_the_text_log() {
        let text = logged(LogFormat::Text, careless);
        assert!(!text.contains(PHONE) && !text.contains(KEY), "{text}");
        assert!(text.contains("session{id=55…66/default}: 55…66/default\\n***"), "{text}");
        assert!(text.contains("bytes=52428800") && text.contains("path=keys/session-55…66.0.json"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn what_logs_codes_and_keys_is_capped_whatever_is_asked_for() {
        let sink = Sink::default();
        let dispatch = dispatch(LogFormat::Text, EnvFilter::new("trace"), false, sink.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(target: "Client/PairCode", "code 1");
            tracing::debug!(target: "Bot/PairCode", "code 2");
            tracing::error!(target: "wacore_libsignal::protocol", "key 3");
            tracing::warn!(target: "Client/PairCode", "code 4");
            tracing::trace!(target: "Client/Keepalive", "ping 5");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let shown: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(shown, ["4", "5"], "{text}");
    }

    #[test]
    fn no_phone_and_no_secret_reaches_the_json_log() {
        let text = logged(LogFormat::Json, careless);
        assert!(!text.contains(PHONE) && !text.contains(KEY), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["spans"][0]["id"], "55…66/default");
        assert_eq!(line["bytes"], 52_428_800);
        assert_eq!(line["path"], "keys/session-55…66.0.json");
        assert_eq!(line["message"], "55…66/default\n***");
    }
}
