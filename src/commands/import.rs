//! `import`: an archive of `export`, or a directory, becomes the head of a session.

use std::fs::File;
use std::io;
use std::path::Path;

use super::moving::{Mover, scratch, temporary, text};
use super::output::Output;
use super::{holder, one_shot};
use crate::cli::Import;
use crate::config::Place;
use crate::error::{Code, Error, Result};
use crate::session::SessionKey;
use crate::sync::control::Control as _;
use crate::sync::journal::blocking;
use crate::sync::migrate::report::MigrateReport;
use crate::sync::migrate::{Lies, Manner, Source, look};
use crate::sync::start::Side;
use crate::tree::Dir;
use crate::tree::exported::{Refused, unpack};

/// The word in the commits that it writes.
const LABEL: &str = "import";
/// Stdin.
const STDIN: &str = "-";

/// Imports; the exit code.
pub(super) async fn run(args: &Import, out: Output) -> Result<u8> {
    let place = Place::new(&args.place)?;
    let key = one_shot::named(place.target(None)?)?;
    spare_the_holder(&place, &key).await?;
    let scratch = scratch(args.scratch.as_ref())?;
    let unpacked = temporary(&scratch)?;
    let path = if args.source.is_dir() {
        std::path::absolute(&args.source).map_err(|error| Error::io("the directory has no path", error))?
    } else {
        let (from, into) = (args.source.clone(), unpacked.path().to_owned());
        blocking(move || read(&from, &into)).await??;
        unpacked.path().to_owned()
    };
    let mover = Mover::open(None, &scratch, &args.remote, &args.hold).await?;
    let manner = Manner {
        // A person says so: what the session was before is pinned.
        on_conflict: Some(Side::Local),
        label: LABEL,
        resumes: false,
        filter: mover.config.tree.filter.clone(),
        verify: true,
        cleanup: false,
        scratch,
    };
    let source = Source { key, path: Some(path), lies: Lies::InRoot };
    let planned = look(&mover.env, source, &manner).await?;
    let sessions = mover.carry_out(vec![planned], &manner, out).await;
    let from = Some(args.source.display().to_string());
    let report = MigrateReport { from, dry_run: false, sessions, ignored: Vec::new() };
    out.result(&report, text)?;
    Ok(report.exit())
}

/// A bot is at work on what would be replaced under it. // P7
async fn spare_the_holder(place: &Place, key: &SessionKey) -> Result<()> {
    let Some(holder) = holder::find(&place.root)? else { return Ok(()) };
    let status = holder.status().await?;
    if !status.sessions.iter().any(|one| one.session == key.to_string()) {
        return Ok(());
    }
    let text = format!(
        "a process keeps session {key} in {}: stop it and its bot, then import again",
        place.root.display()
    );
    Err(Error::new(Code::RootLocked, text))
}

/// Unpacks an archive; nothing of it counts unless all of it does.
fn read(from: &Path, into: &Path) -> Result<()> {
    let shown =
        if is_stdin(from) { "the archive on standard input".to_owned() } else { from.display().to_string() };
    let dir = Dir::open(into).map_err(|error| Error::io("a scratch directory cannot be opened", error))?;
    let unpacked = if is_stdin(from) {
        unpack(io::stdin().lock(), &dir)
    } else {
        let file = File::open(from)
            .map_err(|error| Error::new(Code::Usage, format!("{shown} cannot be read")).because(error))?;
        unpack(file, &dir)
    };
    unpacked.map(drop).map_err(|error| match error {
        Refused::Archive(_) => {
            Error::new(Code::Damaged, format!("{shown}: nothing was imported")).because(error)
        }
        Refused::Disk(error) => Error::io(format!("{shown} cannot be unpacked"), error),
    })
}

fn is_stdin(from: &Path) -> bool {
    from.as_os_str() == STDIN
}
