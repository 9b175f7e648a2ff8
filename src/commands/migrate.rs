//! `migrate`: a plan first, then commits, proofs, and the cleanup that was asked for.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::moving::{Mover, scratch, text};
use super::output::Output;
use super::{deletion, progress};
use crate::cli::Migrate;
use crate::config::Place;
use crate::error::{Code, Error, Result};
use crate::history::HistoryError;
use crate::session::{Layout, STATE_DIR, SessionKey};
use crate::sync::discover;
use crate::sync::migrate::find::{Found, Said, find};
use crate::sync::migrate::report::{Ignored, MigrateReport, SessionMigration};
use crate::sync::migrate::{Lies, Manner, Planned, Source, look, nameless, plan, spare_holder};
use crate::tree::Filter;

/// Where to look, and what of it.
struct From {
    /// A directory.
    dir: PathBuf,
    /// Only this file of it.
    file: Option<String>,
    /// It is the root, whose state directory is ours.
    is_root: bool,
    /// Nobody said so, and it does not exist.
    is_missing: bool,
}

/// Migrates; the exit code.
pub(super) async fn run(args: &Migrate, out: Output) -> Result<u8> {
    let place = Place::new(&args.place)?;
    let from = From::new(args, &place)?;
    if args.cleanup && !args.dry_run && !args.yes {
        let question = "Remove the local files of every session that is restored beside and found to be the same? \
                        Their bots must be stopped.";
        deletion::ask(question, "--yes cleans up without being asked", "nothing was migrated")?;
    }
    if !from.is_missing && !args.from_mirror {
        // The root's own lock is told of when it is taken.
        spare_holder(&from.dir, from.is_root.then_some(&*from.dir))?;
    }
    let has_state = place.root.join(STATE_DIR).is_dir();
    let in_root = from.is_root && !from.is_missing && !args.from_mirror && (has_state || !args.dry_run);
    let temporary = scratch(args.scratch.as_ref())?;
    let root = in_root.then_some(place.root.as_path());
    let mover = Mover::open(root, &temporary, &args.remote, &args.hold).await?;
    let by_default = if in_root { mover.env.root.spool() } else { temporary.clone() };
    let scratch = if args.scratch.is_some() { temporary } else { by_default };
    let manner = Manner {
        on_conflict: args.on_conflict,
        label: plan::LABEL,
        resumes: true,
        filter: from.filter(&mover.config.tree.filter)?,
        verify: args.verify,
        cleanup: args.cleanup,
        scratch: from.outside(scratch)?,
    };
    let found = if args.from_mirror { Found::default() } else { from.find(args, &place)? };
    let only_mirrored = args.from_mirror || (args.from.is_none() && found.candidates.is_empty());
    let (mut refused, mut sources) = sources(&found, &from, &place);
    if only_mirrored {
        sources.extend(mirrored(&mover, &place.layout).await?);
    }
    if sources.is_empty() && refused.is_empty() {
        let text = format!("no session lies in {}: check --from, --layout and --user", from.dir.display());
        return Err(Error::new(Code::NoSession, text));
    }
    let planned = plan(&mover, sources, &manner, out).await?;
    let done = if args.dry_run {
        planned.into_iter().map(|planned| planned.report).collect()
    } else {
        mover.carry_out(planned, &manner, out).await
    };
    refused.extend(done);
    let ignored = found.ignored.into_iter().map(|(path, why)| Ignored { path, why }).collect();
    let looked_at = (!only_mirrored).then(|| from.dir.display().to_string());
    let report = MigrateReport { from: looked_at, dry_run: args.dry_run, sessions: refused, ignored };
    out.result(&report, text)?;
    Ok(report.exit())
}

async fn plan(mover: &Mover, sources: Vec<Source>, manner: &Manner, out: Output) -> Result<Vec<Planned>> {
    let progress = progress::listener(out, &format!("looking at {} sessions", sources.len()));
    let mut planned = Vec::new();
    for source in sources {
        planned.push(look(&mover.env, source, manner).await?);
    }
    drop(progress);
    Ok(planned)
}

/// What was found, as sources; and what is refused by its name.
fn sources(found: &Found, from: &From, place: &Place) -> (Vec<SessionMigration>, Vec<Source>) {
    let (mut refused, mut sources, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    let single = matches!(place.layout, Layout::Single(_));
    for candidate in &found.candidates {
        match &candidate.key {
            Err(error) => refused.push(nameless(&candidate.name, &candidate.path, error)),
            Ok(key) if !seen.insert(key.clone()) => {
                let text = format!("another directory is session {key}, too");
                let error = Error::new(Code::Conflict, text);
                refused.push(nameless(&candidate.name, &candidate.path, &error));
            }
            Ok(key) => sources.push(Source {
                key: key.clone(),
                path: Some(candidate.path.clone()),
                lies: match () {
                    () if from.file.is_some() => Lies::AmongOthers,
                    () if from.is_root && single => Lies::InRoot,
                    () => Lies::Alone,
                },
            }),
        }
    }
    (refused, sources)
}

/// Sessions that the bucket has as plain files only.
async fn mirrored(mover: &Mover, layout: &Layout) -> Result<Vec<Source>> {
    let store = &*mover.env.store;
    let known = discover::remote(store, layout).await.map_err(HistoryError::from)?;
    let stored = discover::with_history(store).await.map_err(HistoryError::from)?;
    // One that was named is looked at whatever the bucket has.
    let named = matches!(layout, Layout::Single(_));
    let only = known.into_iter().filter(|key| named || !stored.contains(key));
    let source = |key: SessionKey| Source { key, path: None, lies: Lies::InRoot };
    Ok(only.map(source).collect())
}

impl From {
    fn new(args: &Migrate, place: &Place) -> Result<Self> {
        let asked = args.from.as_ref().unwrap_or(&place.root);
        let failed = |error: io::Error| {
            Error::new(Code::Usage, format!("--from {} cannot be used", asked.display())).because(error)
        };
        let path = match asked.canonicalize() {
            Ok(path) => path,
            Err(error) if args.from.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { dir: asked.clone(), file: None, is_root: true, is_missing: true });
            }
            Err(error) => return Err(failed(error)),
        };
        let is_root = place.root.canonicalize().is_ok_and(|root| root == path);
        if path.is_dir() {
            return Ok(Self { dir: path, file: None, is_root, is_missing: false });
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(failed(io::ErrorKind::InvalidFilename.into()));
        };
        if args.place.session.is_none() {
            let text = format!(
                "{} is a file: name the session that it becomes with --session USER/ID",
                path.display()
            );
            return Err(Error::new(Code::Usage, text));
        }
        Ok(Self { dir: above.to_owned(), file: Some(name.to_owned()), is_root: false, is_missing: false })
    }

    /// What belongs to a tree; of a file that was named, it alone, with what SQLite keeps beside it.
    fn filter(&self, filter: &Filter) -> Result<Filter> {
        match &self.file {
            None => Ok(filter.clone()),
            Some(name) => Filter::new(filter.preset(), &[format!("/{}", globset::escape(name))], &[]),
        }
    }

    fn find(&self, args: &Migrate, place: &Place) -> Result<Found> {
        if self.is_missing {
            return Ok(Found::default());
        }
        let user = match &place.layout {
            Layout::User(user) => Some(user.as_str()),
            Layout::Single(_) | Layout::Many => None,
        };
        let session = match &place.layout {
            Layout::Single(key) => Some(key),
            Layout::User(_) | Layout::Many => None,
        };
        find(&self.dir, Said { levels: args.layout, user, session })
    }

    /// A scratch directory in the source would be taken for a part of it.
    fn outside(&self, scratch: PathBuf) -> Result<PathBuf> {
        if self.file.is_some() {
            // Of what lies beside that file, nothing is looked at.
            return Ok(scratch);
        }
        let real = scratch.canonicalize().map_err(|error| {
            Error::new(Code::Usage, format!("--scratch {} cannot be used", scratch.display())).because(error)
        })?;
        let below = real.strip_prefix(&self.dir);
        if below.is_ok_and(|below| !below.starts_with(Path::new(STATE_DIR))) {
            let text =
                format!("--scratch {} lies in what is migrated: give another directory", scratch.display());
            return Err(Error::new(Code::Usage, text));
        }
        Ok(scratch)
    }
}
