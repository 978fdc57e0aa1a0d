//! What a new snapshot changes, for the log: one line tells an operator what a build did.

use std::collections::BTreeSet;

use crate::catalog::{Mart, Snapshot};
use crate::metrics::Metrics;

/// The differences between two snapshots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Marts whose content is another, also those that came.
    pub(super) marts: Vec<String>,
    /// Marts that went.
    pub(super) removed: Vec<String>,
    /// Columns that came (`+`), went (`-`) or have another type, of marts that were there before.
    pub(super) columns: Vec<String>,
}

impl Changes {
    /// What `after` changes, after nothing if there was no snapshot.
    pub(super) fn between(before: Option<&Snapshot>, after: &Snapshot) -> Self {
        let mut changes = Self::default();
        let names = before.into_iter().flat_map(|snapshot| snapshot.marts.keys());
        let names: BTreeSet<&String> = names.chain(after.marts.keys()).collect();
        for name in names {
            let old = before.and_then(|snapshot| snapshot.marts.get(name));
            let new = after.marts.get(name);
            let hash = |mart: &Mart| mart.version.pin.hash();
            if old.map(hash) == new.map(hash) {
                continue;
            }
            let list = if new.is_some() { &mut changes.marts } else { &mut changes.removed };
            list.push(name.clone());
            if let (Some(old), Some(new)) = (old, new) {
                let columns = |mart: &Mart| -> Vec<(String, String)> {
                    let columns = mart.columns().iter();
                    columns.map(|column| (column.name.clone(), column.ty.clone())).collect()
                };
                let changed = columns_between(name, &columns(old), &columns(new));
                changes.columns.extend(changed);
            }
        }
        changes
    }

    /// Counts a snapshot, and how long its news took. The first after a start has none: what it shows
    /// may have been there for days.
    pub(super) fn count(&self, before: Option<&Snapshot>, after: &Snapshot, metrics: &Metrics) {
        metrics.publishes.inc();
        let Some(before) = before else { return };
        match &after.ledger {
            Some(ledger) if after.verified && before.ledger != after.ledger => {
                metrics.visible_since(ledger.finished_at);
            }
            _ => {
                let changed = self.marts.iter().filter_map(|name| after.marts.get(name));
                changed.for_each(|mart| metrics.visible_since(mart.version.modified()));
            }
        }
    }
}

fn columns_between(mart: &str, old: &[(String, String)], new: &[(String, String)]) -> Vec<String> {
    let ty = |columns: &[(String, String)], name: &str| {
        columns.iter().find(|(other, _)| other == name).map(|(_, ty)| ty.clone())
    };
    let gone = old.iter().filter(|(name, _)| ty(new, name).is_none());
    let gone = gone.map(|(name, ty)| format!("-{mart}.{name} {ty}"));
    let others = new.iter().filter_map(|(name, new_ty)| match ty(old, name) {
        None => Some(format!("+{mart}.{name} {new_ty}")),
        Some(old_ty) if old_ty != *new_ty => Some(format!("{mart}.{name} {old_ty} -> {new_ty}")),
        Some(_) => None,
    });
    gone.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_go_and_change_their_type() {
        let columns = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned())).collect()
        };
        let old = columns(&[("a", "INTEGER"), ("b", "VARCHAR"), ("c", "DATE")]);
        let new = columns(&[("c", "DATE"), ("a", "BIGINT"), ("d", "UUID")]);
        assert_eq!(
            columns_between("m", &old, &new),
            ["-m.b VARCHAR", "m.a INTEGER -> BIGINT", "+m.d UUID"]
        );
        assert_eq!(columns_between("m", &old, &old), [""; 0]);
    }
}
