//! What a commit writes into the tables is what its events make of them.

use std::collections::{BTreeMap, BTreeSet};

use fettle_controller::model::{Row, RowKey};
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
        let written: BTreeMap<RowKey, &Row> = transaction.rows.iter().map(|row| (row.key(), row)).collect();
        let made = |key: &RowKey| self.model.row(key);
        let last = self.model.last_event;
        if let Some(key) = touched.iter().find(|key| made(key).is_some() && !written.contains_key(key)) {
            return broken("fold", format!("record {last} touches {key:?}, whose row is not written"));
        }
        let other = written.iter().find(|(key, row)| made(key).as_ref() != Some(**row));
        match other {
            None => Ok(()),
            Some((key, row)) => {
                let how = format!(
                    "at record {last} the row {row:?} is written, and the events make {:?}",
                    made(key)
                );
                broken("fold", how)
            }
        }
    }
}
