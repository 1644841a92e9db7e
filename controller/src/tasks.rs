//! Every long-lived task of the controller, and what its death means.
//!
//! Nothing else in this crate starts a task: a task that nobody waits for can die unseen or outlive what it uses.
//! [`Tasks`] is cheap to clone; whoever runs the process holds one, waits on [`Tasks::death`], and ends with
//! [`Tasks::stop`], which is a phase with a budget.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// The one owner of the model.
    Coordinator,
    /// Takes connections of the gRPC port.
    GrpcAccept,
    /// Serves the gRPC port.
    GrpcServer,
    /// Takes connections of the HTTP port.
    HttpAccept,
    /// Serves the HTTP port.
    HttpServer,
    /// One connection of the HTTP port.
    HttpConnection,
    /// One TLS handshake.
    Handshake,
    /// Reads one agent's control stream.
    AgentReader,
    /// Hands one agent's reports to the store.
    AgentSession,
    /// Passes on one agent's live output.
    AgentOutput,
    /// Joins one host.
    Enrolment,
    /// Signs one person in.
    Login,
    /// Revokes one host.
    Revocation,
    /// Streams something to one person's client.
    Watch,
    /// Replaces the server's certificate before it ends.
    CertificateRenewal,
    /// Measures how long something takes.
    Measurement,
    /// Sends notifications.
    Notifier,
    /// Watches the policy, roster and runbook folders.
    FolderWatch,
}

/// What the death of a task means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeath {
    /// Without it the controller is not one; stop, and let the service manager start a whole one.
    StopController,
    /// Others go on; whoever needed it comes back.
    LogAndForget,
}

impl TaskKind {
    /// What the death of a task of this kind means.
    pub const fn on_death(self) -> OnDeath {
        match self {
            TaskKind::Coordinator
            | TaskKind::GrpcAccept
            | TaskKind::GrpcServer
            | TaskKind::HttpAccept
            | TaskKind::HttpServer
            | TaskKind::CertificateRenewal
            | TaskKind::Notifier
            | TaskKind::FolderWatch => OnDeath::StopController,
            TaskKind::HttpConnection
            | TaskKind::Handshake
            | TaskKind::AgentReader
            | TaskKind::AgentSession
            | TaskKind::AgentOutput
            | TaskKind::Enrolment
            | TaskKind::Login
            | TaskKind::Revocation
            | TaskKind::Measurement
            | TaskKind::Watch => OnDeath::LogAndForget,
        }
    }
}

/// How the tasks left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every task came to its end.
    Clean,
    /// Time ran out with so many still running.
    Abandoned {
        /// How many.
        tasks: usize,
    },
}

/// Owns every task. Clones are handles to the same set.
#[derive(Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    tracker: TaskTracker,
    stop: CancellationToken,
    death: watch::Sender<Option<TaskKind>>,
    panics: AtomicUsize,
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks::new()
    }
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Tasks {
        Tasks {
            shared: Arc::new(Shared {
                tracker: TaskTracker::new(),
                stop: CancellationToken::new(),
                death: watch::Sender::new(None),
                panics: AtomicUsize::new(0),
            }),
        }
    }

    /// Starts a task. It should watch [`Tasks::stopping`] and return soon after that is cancelled.
    pub fn spawn<F>(&self, kind: TaskKind, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // Not an `async` block: that would have room for the task twice, where it is given and where it is awaited.
        let ended = move |how: Result<(), _>| shared.ended(kind, how.is_err());
        self.shared.tracker.spawn(AssertUnwindSafe(task).catch_unwind().map(ended))
    }

    /// Cancelled when the controller stops.
    pub fn stopping(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Waits until a task dies whose death ends the controller, and names it. Never returns otherwise.
    pub async fn death(&self) -> TaskKind {
        let mut death = self.shared.death.subscribe();
        loop {
            if let Some(kind) = *death.borrow_and_update() {
                return kind;
            }
            // The sender lives in `self`, so this cannot fail.
            if death.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How many tasks have panicked so far; a metric.
    pub fn panics(&self) -> usize {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Asks every task to stop, waits for at most `budget`, and says how that went.
    pub async fn stop(&self, budget: Duration) -> Stopped {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        match tokio::time::timeout(budget, self.shared.tracker.wait()).await {
            Ok(()) => Stopped::Clean,
            Err(_) => Stopped::Abandoned { tasks: self.shared.tracker.len() },
        }
    }
}

impl Shared {
    fn ended(&self, kind: TaskKind, panicked: bool) {
        if panicked {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = ?kind, "Task panicked.");
        }
        match kind.on_death() {
            OnDeath::LogAndForget => {}
            OnDeath::StopController if self.stop.is_cancelled() => {}
            OnDeath::StopController => {
                tracing::error!(task = ?kind, "Task ended, and the controller cannot go on without it.");
                self.death.send_if_modified(|first| {
                    let news = first.is_none();
                    first.get_or_insert(kind);
                    news
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_death_of_a_vital_task_is_told() {
        let tasks = Tasks::new();
        tasks.spawn(TaskKind::Watch, async { panic!("a watcher may die") });
        tasks.spawn(TaskKind::Notifier, async {});
        assert_eq!(tasks.death().await, TaskKind::Notifier);
    }

    #[tokio::test]
    async fn stopping_waits_for_tasks_and_says_what_is_left() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping();
        tasks.spawn(TaskKind::Coordinator, async move { stopping.cancelled().await });
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Stopped::Clean);

        let tasks = Tasks::new();
        tasks.spawn(TaskKind::AgentSession, std::future::pending());
        assert_eq!(tasks.stop(Duration::from_millis(10)).await, Stopped::Abandoned { tasks: 1 });
    }
}
