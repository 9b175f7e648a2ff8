//! The crate's tasks in the session's span: its log lines carry no session of their own.

use std::pin::Pin;
use std::time::Duration;

use tracing::{Instrument as _, Span};
use whatsapp_rust::wacore::runtime::AbortHandle;
use whatsapp_rust::{Runtime, TokioRuntime};

/// Tokio, with a span around every task.
pub(super) struct Traced(pub Span);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Runtime for Traced {
    fn spawn(&self, future: Task) -> AbortHandle {
        TokioRuntime.spawn(Box::pin(future.instrument(self.0.clone())))
    }

    fn spawn_detached(&self, future: Task) {
        TokioRuntime.spawn_detached(Box::pin(future.instrument(self.0.clone())));
    }

    fn sleep(&self, duration: Duration) -> Task {
        TokioRuntime.sleep(duration)
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        let span = self.0.clone();
        TokioRuntime.spawn_blocking(Box::new(move || span.in_scope(work)))
    }

    fn yield_now(&self) -> Option<Task> {
        TokioRuntime.yield_now()
    }
}
