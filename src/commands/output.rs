//! Where results and errors go: the contract of `docs/cli-json.md`.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cli::OutputArgs;
use crate::cli::values::LogFormat;
use crate::error::{Code, Error, ErrorReport, Result};
use crate::telemetry;

/// Results on stdout, as text or as one JSON document; errors as a line on stderr, and with `--json` also as
/// that one document.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    logs: LogFormat,
    /// Stdout belongs to a child, or to lines for a shell.
    lent: bool,
}

impl Output {
    /// As the flags say.
    #[must_use]
    pub fn new(args: OutputArgs) -> Self {
        Self { json: args.json, logs: args.log_format, lent: false }
    }

    /// The same with stdout in other hands: nothing of ours appears there, whatever the flags say.
    #[must_use]
    pub fn lend_stdout(self) -> Self {
        Self { lent: true, ..self }
    }

    /// Whether machines read the result.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json && !self.lent
    }

    /// Whether somebody watches progress bars.
    #[must_use]
    pub fn wants_progress(self) -> bool {
        !self.json && self.logs == LogFormat::Text && io::stderr().is_terminal()
    }

    /// Prints a result: as the one JSON document, or as the text that `text` makes of it.
    pub fn result<T: Serialize>(self, report: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if self.lent {
            return Ok(());
        }
        if self.json {
            let document = serde_json::to_string(report).map_err(|error| {
                Error::new(Code::Internal, "cannot write the result as JSON").because(error)
            })?;
            return print(&document);
        }
        print(text(report).trim_end())
    }

    /// Prints the error that ends a command.
    pub fn error(self, error: &Error) {
        if self.is_json() {
            let document = serde_json::to_string(&ErrorReport::from(error)).expect("two strings are JSON");
            // The exit code still tells.
            let _ = print(&document);
        }
        telemetry::report(error, self.logs);
    }
}

/// Writes to stdout. A reader that went away (`| head`) is no error: it has read what it wanted.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}
