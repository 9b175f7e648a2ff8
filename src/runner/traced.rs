//! The crate's tasks: in the session's span, for its log lines carry no session of their own, and within reach.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::AbortHandle;
use tracing::{Instrument as _, Span};
use whatsapp_rust::{Runtime, TokioRuntime, wacore};

use super::slot::lock;

/// Tokio, with a span around every task of one client.
pub(super) struct Traced {
    pub span: Span,
    pub tasks: Tasks,
}

/// The tasks of one client. Some do not hear of its end: the one that changes QR codes sleeps for up to a minute and
/// has the database open all the while.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl Tasks {
    /// Ends those that are left of a client that was shut down.
    pub(super) fn end(&self) {
        for task in lock(&self.0).drain(..) {
            task.abort();
        }
    }

    fn add(&self, task: AbortHandle) {
        let mut tasks = lock(&self.0);
        if tasks.len() == tasks.capacity() {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Runtime for Traced {
    fn spawn(&self, future: Task) -> wacore::runtime::AbortHandle {
        let task = tokio::spawn(future.instrument(self.span.clone()));
        self.tasks.add(task.abort_handle());
        wacore::runtime::AbortHandle::new(move || task.abort())
    }

    fn spawn_detached(&self, future: Task) {
        self.tasks.add(tokio::spawn(future.instrument(self.span.clone())).abort_handle());
    }

    fn sleep(&self, duration: Duration) -> Task {
        TokioRuntime.sleep(duration)
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        let span = self.span.clone();
        TokioRuntime.spawn_blocking(Box::new(move || span.in_scope(work)))
    }

    fn yield_now(&self) -> Option<Task> {
        TokioRuntime.yield_now()
    }
}
