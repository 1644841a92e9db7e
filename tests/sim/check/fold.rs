//! What the tables hold after each commit is what the events make of them.

use std::collections::BTreeSet;

use fettle_controller::model::RowKey;
use fettle_controller::store::Transaction;

use super::{Broken, Checker, broken, count};

impl Checker {
    /// A commit became durable.
    pub(crate) fn committed(&mut self, transaction: &Transaction) -> Result<(), Broken> {
        count("rule fold: a commit");
        let mut touched: BTreeSet<RowKey> = BTreeSet::new();
        for record in &transaction.records {
            touched.extend(self.record(record)?);
        }
        for row in &transaction.rows {
            touched.insert(row.key());
            self.tables.insert(row.key(), row.clone());
        }
        let other = touched.iter().find(|key| self.tables.get(*key) != self.model.row(key).as_ref());
        match other {
            None => Ok(()),
            Some(key) => {
                let (last, row, made) = (self.model.last_event, self.tables.get(key), self.model.row(key));
                broken(
                    "fold",
                    format!("at record {last} the row {row:?} stands, and the events make {made:?}"),
                )
            }
        }
    }
}
