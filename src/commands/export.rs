//! `export`: one point of a history as a directory or an archive, without a lease.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use super::bucket::{Bucket, fetch};
use super::output::Output;
use crate::cli::Export;
use crate::error::{Code, Error, Result};
use crate::history::{Chain, Id, Silent};
use crate::sync::journal::blocking;
use crate::tree::Dir;
use crate::tree::exported::pack;

/// What makes the target an archive.
const SUFFIX: &str = ".tar.zst";
/// Archives that are asked for by mistake: a directory of such a name helps nobody.
const OTHERS: [&str; 8] = [".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".zip", ".7z"];
/// Stdout.
const STDOUT: &str = "-";

#[derive(Serialize)]
struct Report {
    session: String,
    id: Id,
    to: PathBuf,
    files: u64,
    bytes: u64,
}

/// Whether an export goes to stdout, which holds nothing else then.
pub(super) fn is_stdout(args: &Export) -> bool {
    args.to.as_os_str() == STDOUT
}

/// Exports; the target appears whole or not at all, unless it is stdout.
pub(super) async fn run(args: &Export, out: Output) -> Result<()> {
    if is_stdout(args) {
        return to_stdout(args, out).await;
    }
    let target = std::path::absolute(&args.to)
        .map_err(|error| Error::new(Code::Usage, "--to is no path").because(error))?;
    let is_archive = is_archive(&target)?;
    refuse_taken(&target, is_archive)?;
    let above =
        target.parent().ok_or_else(|| Error::new(Code::Usage, "--to is the root directory"))?.to_owned();

    let bucket = Bucket::open(&args.look).await?;
    let key = bucket.session().await?;
    std::fs::create_dir_all(&above)
        .map_err(|error| unwritable(format!("--to: cannot make {}", above.display()), error))?;
    // Beside the target: a rename puts it in place, and there is room or there is not.
    let temporary = || {
        tempfile::Builder::new()
            .prefix(".export-")
            .tempdir_in(&above)
            .map_err(|error| unwritable(format!("--to: cannot write below {}", above.display()), error))
    };
    let scratch = temporary()?;
    let chain = fetch(bucket.access(), &key, args.at, scratch.path(), out).await?;
    let (id, tree) = (chain.head().id, chain.head().tree);
    let (staging, to) = (temporary()?, target.clone());
    blocking(move || write(&chain, staging, &to, is_archive)).await??;

    let report = Report { session: key.to_string(), id, to: target, files: tree.files, bytes: tree.bytes };
    out.result(&report, |report| {
        let amount = super::show::amount(report.files, report.bytes);
        format!("{}  exported {} to {}: {amount}", report.session, report.id, report.to.display())
    })
}

/// The archive alone, for a pipe.
async fn to_stdout(args: &Export, out: Output) -> Result<()> {
    if io::stdout().is_terminal() {
        let text = "--to - writes an archive, which is not for a terminal: pipe it (| zstd -dc | tar -t)";
        return Err(Error::new(Code::Usage, text));
    }
    let bucket = Bucket::open(&args.look).await?;
    let key = bucket.session().await?;
    let temporary =
        || tempfile::tempdir().map_err(|error| Error::io("cannot make a temporary directory", error));
    let (scratch, staging) = (temporary()?, temporary()?);
    let chain = fetch(bucket.access(), &key, args.at, scratch.path(), out).await?;
    let work = move || {
        let failed = |error| Error::io("cannot write to standard output", error);
        let dir = Dir::open(staging.path()).map_err(failed)?;
        chain.extract(&dir, &Silent)?;
        let mut stdout = io::stdout().lock();
        pack(chain.table(), &dir, &mut stdout).and_then(|()| stdout.flush()).map_err(failed)
    };
    blocking(work).await?
}

/// By the target's name: an archive, or a directory.
///
/// # Errors
/// [`Code::Usage`] for an archive of a kind that is not written here.
fn is_archive(target: &Path) -> Result<bool> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(SUFFIX) {
        return Ok(true);
    }
    let name = name.to_ascii_lowercase();
    match OTHERS.iter().find(|other| name.ends_with(*other)) {
        Some(other) => Err(Error::new(
            Code::Usage,
            format!("--to: archives are written as {SUFFIX}, not {other}: give a name that ends in {SUFFIX}"),
        )),
        None => Ok(false),
    }
}

/// A target that cannot be written is the caller's to change, whatever the system says.
fn unwritable(what: impl fmt::Display, error: io::Error) -> Error {
    match Error::io(what, error) {
        error if error.code() == Code::DiskFull => error,
        error => Error::new(Code::Usage, error.to_string()),
    }
}

/// Nothing that is there is replaced.
fn refuse_taken(target: &Path, is_archive: bool) -> Result<()> {
    let shown = target.display();
    match std::fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unwritable(format!("--to: cannot look at {shown}"), error)),
        Ok(found) if !is_archive && found.is_dir() => {
            let mut names = std::fs::read_dir(target)
                .map_err(|error| Error::io(format!("cannot read {shown}"), error))?;
            if names.next().is_none() { Ok(()) } else { Err(taken(target)) }
        }
        Ok(_) => Err(taken(target)),
    }
}

fn taken(target: &Path) -> Error {
    let what = "is there already: give an empty or new directory, or a new file that ends in .tar.zst";
    Error::new(Code::Usage, format!("{} {what}", target.display()))
}

fn write(chain: &Chain, staging: TempDir, target: &Path, is_archive: bool) -> Result<()> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => taken(target),
        _ => unwritable(format!("--to: cannot write {}", target.display()), error),
    };
    let dir = Dir::open(staging.path()).map_err(failed)?;
    chain.extract(&dir, &Silent)?;
    if is_archive {
        let above = target.parent().unwrap_or(target);
        let mut file = tempfile::NamedTempFile::new_in(above).map_err(failed)?;
        pack(chain.table(), &dir, file.as_file_mut()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist_noclobber(target).map_err(|error| failed(error.error))?;
    } else {
        dir.sync_filesystem().map_err(failed)?;
        // Takes the place of an empty directory only.
        std::fs::rename(staging.path(), target).map_err(failed)?;
        // Nothing is left at its old name.
        let _ = staging.keep();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_another_kind_of_archive_is_refused() {
        assert!(is_archive(Path::new("/x/a.tar.zst")).unwrap());
        for directory in ["/x/a", "/x/a.zip.d", "/x.tar/a"] {
            assert!(!is_archive(Path::new(directory)).unwrap(), "{directory}");
        }
        for other in ["a.tar", "a.tar.gz", "a.tgz", "a.ZIP", "a.tar.xz", "a.zst", "a.TAR.ZST"] {
            let error = is_archive(Path::new(other)).unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{other}");
            assert!(error.to_string().contains(".tar.zst"), "{error}");
        }
    }
}
