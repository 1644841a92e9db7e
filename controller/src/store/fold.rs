//! The checker: folding the whole history must give exactly the tables.

use std::collections::BTreeMap;

use super::{Of, Store, Unavailable};
use crate::model::{Model, Row, RowKey};

/// A row that is not what the history says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub key: RowKey,
    /// What the history makes of it.
    pub folded: Option<Row>,
    /// What the table has.
    pub stored: Option<Row>,
}

/// Records read at a time.
const PAGE: usize = 1000;

/// Folds everything and compares; no difference is the good answer. Not for a store that is written to meanwhile.
pub fn check_fold(store: &dyn Store) -> Result<Vec<Difference>, Unavailable> {
    let mut model = Model::default();
    loop {
        let page = store.history(Of::Everything, model.last_event, PAGE)?;
        if page.is_empty() {
            break;
        }
        for record in page {
            model.apply(record.number, record.at, &record.change);
        }
    }
    let folded = model.rows();
    let stored: BTreeMap<RowKey, Row> = store.rows()?.into_iter().map(|row| (row.key(), row)).collect();
    let keys = folded.keys().chain(stored.keys().filter(|key| !folded.contains_key(key)));
    Ok(keys
        .filter(|key| folded.get(key) != stored.get(key))
        .map(|key| Difference {
            key: key.clone(),
            folded: folded.get(key).cloned(),
            stored: stored.get(key).cloned(),
        })
        .collect())
}
