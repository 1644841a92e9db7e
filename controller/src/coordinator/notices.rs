//! Notifications enter the outbox.

use fettle_runbooks::id::{GateId, Host, RunId};

use super::desk::Desk;
use crate::model::Change;
use crate::model::row::NotificationRow;
use crate::notify::{Notification, retry};

impl Desk<'_> {
    /// Queues a notification, if there is anyone to tell.
    #[allow(clippy::too_many_arguments, reason = "they are the members of the document")]
    pub(super) fn notify(
        &mut self,
        kind: &'static str,
        title: String,
        run: Option<RunId>,
        gate: Option<GateId>,
        host: Option<&Host>,
        to: &[String],
        text: &str,
    ) {
        if self.in_force.policy.notify.is_none() {
            return;
        }
        fn word<T: ToString>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let id = self.model.next_notification();
        let incident = run.and_then(|run| self.model.runs.get(&run)).and_then(|row| row.incident);
        let body = Notification {
            fettle: "notification/1",
            id: id.to_string(),
            kind,
            at: self.now.to_string(),
            title,
            run: word(run),
            gate: word(gate),
            incident: word(incident),
            host: word(host),
            to: to.to_vec(),
            text: text.to_owned(),
        };
        let Ok(body) = serde_json::to_string(&body) else { return };
        self.change(Change::NotificationQueued(Box::new(NotificationRow {
            id,
            body,
            created_at: self.now,
            tries: 0,
            next_at: Some(self.now),
            note: String::new(),
        })));
    }

    /// A delivery came to an end.
    pub(super) fn delivered(&mut self, id: u64, result: Result<(), String>) {
        let Some(row) = self.model.notifications.get(&id) else { return };
        let tries = row.tries + 1;
        let (next_at, note) = match result {
            Ok(()) => (None, "delivered".to_owned()),
            Err(why) => match retry(tries, self.now) {
                Some(at) => (Some(at), why),
                None => (None, format!("given up after {tries} tries: {why}")),
            },
        };
        self.change(Change::NotificationTried { id, next_at, note });
    }
}
