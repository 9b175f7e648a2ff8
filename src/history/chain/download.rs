//! Fetching the objects of a chain into files.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use tempfile::TempDir;

use super::{Link, Progress};
use crate::history::HistoryError;
use crate::history::access::Access;
use crate::history::name::Id;
use crate::history::survey::Survey;
use crate::store::{Kind, Object, Sink, Store, StoreError};

/// Objects at once. Restore time is round trips.
const CONCURRENCY: usize = 64;

/// Links of a chain, each here or not.
#[derive(Debug)]
pub(in crate::history) struct Fetched {
    pub(in crate::history) scratch: Arc<TempDir>,
    pub(in crate::history) links: Vec<Result<Link, HistoryError>>,
}

struct Job {
    link: usize,
    id: Id,
    object: Object,
    path: PathBuf,
}

/// Downloads all parts of these commits, which the survey has. Fails only when storage as a whole, or the disk,
/// does; what is wrong with a single object stands in its place.
pub(in crate::history) async fn download(
    Access { store, keys, .. }: Access<'_>,
    survey: &Survey,
    ids: &[Id],
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Fetched, HistoryError> {
    let scratch = TempDir::with_prefix_in("fetch-", scratch)
        .map_err(|error| HistoryError::io("cannot make a directory for fetched objects", error))?;
    let mut links = Vec::new();
    let mut jobs = Vec::new();
    for id in ids {
        let listed = survey.commits.get(id).ok_or(HistoryError::Missing { id: *id })?;
        let mut parts = Vec::new();
        for (number, object) in listed.objects.iter().enumerate() {
            let path = scratch.path().join(format!("{id}.{number}"));
            parts.push(path.clone());
            jobs.push(Job { link: links.len(), id: *id, object: object.clone(), path });
        }
        links.push(Ok(Link { name: listed.name, parts, keys: keys.clone() }));
    }
    progress.planned(jobs.len() as u64, jobs.iter().map(|job| job.object.size).sum());

    let total = jobs.len();
    let failed = run(store, jobs, progress).await;
    let others_work = failed.len() < total;
    let (again, mut lasting): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|(_, error)| others_work && is_transient(error));
    // What failed among others that did not gets one more turn alone: the outage may have been short.
    let again = run(store, again.into_iter().map(|(job, _)| job).collect(), progress).await;
    lasting.extend(again.into_iter().map(|(job, error)| {
        // One object that cannot be read while others can is no outage: waiting will not mend it.
        let error = if is_transient(&error) { unreadable(job.id, &error) } else { error };
        (job, error)
    }));
    for (job, error) in lasting {
        if error.is_damage() {
            links[job.link] = Err(error);
        } else {
            return Err(error);
        }
    }
    Ok(Fetched { scratch: Arc::new(scratch), links })
}

/// Runs all jobs; returns those that failed.
async fn run(store: &dyn Store, jobs: Vec<Job>, progress: &dyn Progress) -> Vec<(Job, HistoryError)> {
    let mut running = futures_util::stream::iter(jobs)
        .map(|job| async move {
            let result = get(store, &job, progress).await;
            (job, result)
        })
        .buffer_unordered(CONCURRENCY);
    let mut failed = Vec::new();
    while let Some((job, result)) = running.next().await {
        match result {
            Ok(()) => progress.fetched(),
            Err(error) => failed.push((job, error)),
        }
    }
    failed
}

async fn get(store: &dyn Store, job: &Job, progress: &dyn Progress) -> Result<(), HistoryError> {
    let file = File::create(&job.path)
        .map_err(|error| HistoryError::io("cannot write down a fetched object", error))?;
    let mut sink = Counting { file, bytes: 0, progress, failed: None };
    let result = store.get(&job.object.key, &mut sink).await;
    if let Some(error) = sink.failed {
        return Err(HistoryError::io("cannot write down a fetched object", error));
    }
    match result {
        Ok(()) if sink.bytes == job.object.size => Ok(()),
        Ok(()) => Err(HistoryError::damaged(
            job.id,
            format!("{} bytes arrived of {} that are listed", sink.bytes, job.object.size),
        )),
        Err(error) if error.kind == Kind::NotFound => Err(HistoryError::Gone { id: job.id }),
        Err(error) => Err(error.into()),
    }
}

fn is_transient(error: &HistoryError) -> bool {
    matches!(error, HistoryError::Store(StoreError { kind: Kind::Transient, .. }))
}

fn unreadable(id: Id, error: &HistoryError) -> HistoryError {
    HistoryError::damaged(id, format!("it cannot be read while others can: {error}"))
}

/// A file that tells how much arrived, and remembers that the disk failed, not the store.
struct Counting<'a> {
    file: File,
    bytes: u64,
    progress: &'a dyn Progress,
    failed: Option<io::Error>,
}

impl Counting<'_> {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

impl Sink for Counting<'_> {
    fn restart(&mut self) -> io::Result<()> {
        self.progress.received(-i64::try_from(self.bytes).unwrap_or(i64::MAX));
        self.bytes = 0;
        let result = Sink::restart(&mut self.file);
        self.note(result)
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        let result = Sink::write(&mut self.file, chunk);
        self.note(result)?;
        self.bytes += chunk.len() as u64;
        self.progress.received(i64::try_from(chunk.len()).unwrap_or(i64::MAX));
        Ok(())
    }
}
