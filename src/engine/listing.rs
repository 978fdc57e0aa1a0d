//! Listings that are answered without DuckDB: from the rows of a mart that is held decoded.
//!
//! DuckDB says once what columns a listing gives. From then on its rows are [looked up](Lookup), and
//! where they are few, the thread that asks does that itself: to hand a query to another thread and
//! back takes longer than to find a few rows.

use std::sync::Arc;

use super::chunk::Chunk;
use super::conditions::{self, Known};
use super::decoded::{Decoded, Lookup, Order};
use super::gate::{Checked, OperandValue};
use super::instance::{Instance, Scope, Table};
use super::query::{Answer, Parameters, QueryError};
use super::types::Column;

/// What is found at once: as many rows may be looked at, ...
const FEW_ROWS: usize = 256;
/// ... which have so many values, ...
const FEW_VALUES: usize = 4_096;
/// ... and texts of so many bytes. To encode them takes a fraction of a millisecond.
const FEW_BYTES: usize = 16 << 10;

/// Listings that an instance remembers.
pub(super) const LISTINGS: usize = 256;

/// What a listing of a mart gives.
#[derive(Debug)]
pub(super) struct Listing {
    /// The mart's number.
    table: usize,
    /// As the client's statement names them.
    pub(super) columns: Vec<Column>,
    /// The mart's columns that they are.
    pub(super) places: Vec<usize>,
}

impl Listing {
    /// That of a statement with these columns, if each is one of the mart's.
    pub(super) fn of(table: usize, mart: &Decoded, columns: Vec<Column>) -> Option<Self> {
        let place = |column: &Column| {
            let place = mart.column_named(&column.name)?;
            (*mart.kind(place) == column.ty).then_some(place)
        };
        let places = columns.iter().map(place).collect::<Option<Vec<usize>>>()?;
        Some(Self { table, columns, places })
    }
}

/// The rows that a statement gives, if it can do without DuckDB, and without looking at more rows than
/// this.
pub(super) fn lookup(
    checked: &Checked,
    parameters: &Parameters,
    mart: &Arc<Decoded>,
    known: &Known,
    most: usize,
) -> Option<Lookup> {
    let page = checked.page.as_ref()?;
    let [(_, tests)] = known.tests.as_slice() else { return None };
    let given = checked.parameters.iter().filter(|name| parameters.get(name).is_some()).count();
    // What is missing or too much is for DuckDB's way to name.
    let as_many = given == checked.parameters.len() && given == parameters.len();
    if !known.is_all || !as_many {
        return None;
    }
    let count = |value: &Option<OperandValue>, otherwise: u64| match value {
        Some(value) => conditions::count(value, parameters),
        None => Some(otherwise),
    };
    let (limit, offset) = (count(&page.limit, u64::MAX)?, count(&page.offset, 0)?);
    // Told before rows are looked for in vain.
    let order = match &checked.ordering {
        Some(ordering) => Some(Order::of(mart, ordering)?),
        None => None,
    };
    let lookup = Lookup::new(mart, tests.clone(), (offset, limit), most)?;
    match order {
        Some(order) => lookup.ordered_by(order),
        None => Some(lookup),
    }
}

impl Instance {
    /// Answers a statement that passed the gate, if it is one of few rows that can be found without
    /// DuckDB and without waiting for anything: an async thread may do that. `None` says that it
    /// needs a [`Session`](super::Session), which also tells what is wrong with it.
    pub fn answer_at_once<R>(
        self: &Arc<Self>,
        sql: &str,
        checked: &Checked,
        parameters: &Parameters,
        scope: &Scope,
        consume: impl FnOnce(&mut Answer<'_, '_>) -> Result<R, QueryError>,
    ) -> Option<R> {
        let listing = self.listings().get(sql)?;
        let tables = self.tables_of(checked).ok()?;
        let held = self.held_decoded(&tables);
        let [(_, mart)] = held.as_slice() else { return None };
        let known = self.known(checked, parameters, scope, &held);
        if !known.tests.iter().flat_map(|(_, tests)| tests).all(|test| mart.is_bounded(test)) {
            return None;
        }
        let rows = few(lookup(checked, parameters, mart, &known, FEW_ROWS)?, &listing)?;
        let answered = consume(&mut Answer::of_rows(self, sql, &tables, rows, &listing)).ok()?;
        self.runtime().forms.count_decoded();
        self.runtime().count_lookup();
        Some(answered)
    }

    /// Takes over what is known of the listings of marts whose columns are the same: to these a
    /// statement means the same.
    pub(super) fn inherit_listings(&self, previous: &Self) {
        for (sql, listing) in previous.listings().iter() {
            let before = &previous.tables()[listing.table];
            let same = |own: &Table| own.name == before.name && own.columns == before.columns;
            let Some(table) = self.tables().iter().position(same) else { continue };
            let [(_, mart)] = &self.held_decoded(&[table])[..] else { continue };
            if let Some(listing) = Listing::of(table, mart, listing.columns.clone()) {
                self.listings().insert(sql, Arc::new(listing));
            }
        }
    }
}

/// The rows, if they are few values.
fn few(mut lookup: Lookup, listing: &Listing) -> Option<Vec<Chunk>> {
    let (mut chunks, mut values, mut bytes) = (Vec::new(), 0, 0);
    while let Some(chunk) = lookup.next_chunk(&listing.places) {
        values += chunk.rows() * listing.places.len();
        let texts = listing.columns.iter().zip(chunk.columns());
        let texts = texts.filter(|(column, _)| column.ty.is_text());
        bytes += texts.map(|(_, texts)| texts.text_bytes()).sum::<usize>();
        if values > FEW_VALUES || bytes > FEW_BYTES {
            return None;
        }
        if chunk.rows() > 0 {
            chunks.push(chunk);
        }
    }
    Some(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::decoded::Part;
    use crate::engine::gate::Gate;
    use crate::engine::instance::Scoping;
    use crate::engine::query::tests::instance_of;
    use crate::engine::value::Value;

    fn checked(sql: &str) -> Arc<Checked> {
        Gate::new().expect("a gate").check(sql).expect(sql)
    }

    fn collect(answer: &mut Answer<'_, '_>) -> Result<Vec<i64>, QueryError> {
        let mut values = Vec::new();
        while let Some(chunk) = answer.next_chunk()? {
            values.extend_from_slice(chunk.column(0).values::<i64>());
        }
        Ok(values)
    }

    fn by_session(instance: &Arc<Instance>, sql: &str, parameters: &Parameters, scope: &Scope) {
        let mut session = instance.session().expect("a session");
        let outcome = session.query(sql, &checked(sql), parameters, scope, collect);
        outcome.expect(sql);
    }

    fn at_once(
        instance: &Arc<Instance>,
        sql: &str,
        parameters: &Parameters,
        scope: &Scope,
    ) -> Option<Vec<i64>> {
        instance.answer_at_once(sql, &checked(sql), parameters, scope, collect)
    }

    fn integers(values: &[i64]) -> Parameters {
        Parameters::Positional(values.iter().copied().map(Value::BigInt).collect())
    }

    const ROWS: &str = "SELECT i AS x, 'text ' || i % 5 AS text FROM range(10_000) t(i)";

    #[test]
    fn few_rows_are_found_by_the_thread_that_asks_once_the_columns_are_known() {
        let instance = instance_of(ROWS, None, None);
        let sql = "SELECT x, text FROM mart.a WHERE x >= ? AND x < 4_096 LIMIT ?";
        let ask = |values: &[i64]| at_once(&instance, sql, &integers(values), &Scope::AllRows);
        assert_eq!(ask(&[9_990, 3]), None, "DuckDB has not said what it gives");
        by_session(&instance, sql, &integers(&[0, 1]), &Scope::AllRows);
        assert_eq!(ask(&[4_090, 3]), None, "it has to look at a chunk of 2,048 rows");
        assert_eq!(ask(&[4_096, 3]), Some(vec![]), "no chunk has such");
        assert_eq!(ask(&[4_096]), None, "a parameter is missing");
        let indexed = "SELECT x FROM mart.a WHERE x = ?";
        by_session(&instance, indexed, &integers(&[1]), &Scope::AllRows);
        instance.held_decoded(&[0])[0].1.make(0, Part::Index);
        let found = at_once(&instance, indexed, &integers(&[4_711]), &Scope::AllRows);
        assert_eq!(found, Some(vec![4_711]));
        assert_eq!(at_once(&instance, indexed, &integers(&[1, 2]), &Scope::AllRows), None);
        for other in ["SELECT x + 1 FROM mart.a WHERE x = 1", "SELECT max(x) FROM mart.a"] {
            by_session(&instance, other, &integers(&[]), &Scope::AllRows);
            assert_eq!(at_once(&instance, other, &integers(&[]), &Scope::AllRows), None, "{other}");
        }
    }

    #[test]
    fn few_rows_are_put_in_order_where_it_is_known_which_comes_first() {
        let rows = "SELECT i AS x, i % 7 AS y FROM range(200) t(i)";
        let instance = instance_of(rows, None, None);
        let sql = "SELECT x FROM mart.a WHERE x >= ? ORDER BY y DESC, x LIMIT ? OFFSET ?";
        let ask = |values: &[i64]| at_once(&instance, sql, &integers(values), &Scope::AllRows);
        by_session(&instance, sql, &integers(&[0, 1, 0]), &Scope::AllRows);
        assert_eq!(
            ask(&[190, 3, 0]),
            Some(vec![195, 194, 193]),
            "the session saw to what it asks for"
        );
        assert_eq!(ask(&[190, 3, 9]), Some(vec![196]));
        assert_eq!(ask(&[190, 0, 0]), Some(vec![]));
        assert_eq!(ask(&[200, 9, 0]), Some(vec![]));
        let tied = "SELECT x FROM mart.a WHERE x < 9 ORDER BY y";
        by_session(&instance, tied, &integers(&[]), &Scope::AllRows);
        let found = at_once(&instance, tied, &integers(&[]), &Scope::AllRows);
        assert_eq!(found, None, "which of two comes first is DuckDB's choice");
    }

    #[test]
    fn a_value_inside_of_a_column_is_no_column() {
        let rows = "SELECT '{\"x\": 1}'::JSON AS k, '2'::JSON AS x";
        let instance = instance_of(rows, None, None);
        let sql = "SELECT k.x FROM mart.a";
        let ask = || {
            let mut session = instance.session().expect("a session");
            let text = |answer: &mut Answer<'_, '_>| {
                let chunk = answer.next_chunk()?.expect("a row");
                Ok(chunk.column(0).bytes(0).to_vec())
            };
            session.query(sql, &checked(sql), &integers(&[]), &Scope::AllRows, text).expect(sql)
        };
        assert_eq!([ask(), ask()], [b"1", b"1"]);
    }

    #[test]
    fn what_takes_long_to_encode_is_left_to_a_thread() {
        for (select, is_few) in [
            ("SELECT i AS x FROM range(256) t(i)", true),
            ("SELECT i AS x FROM range(257) t(i)", false),
            ("SELECT 1::BIGINT AS x, repeat('x', 16_384) AS text", true),
            ("SELECT 1::BIGINT AS x, repeat('x', 16_385) AS text", false),
            ("SELECT 1::BIGINT AS x, repeat('x', 16_385)::BLOB AS text", false),
        ] {
            let instance = instance_of(select, None, None);
            let (sql, none) = ("SELECT * FROM mart.a", integers(&[]));
            by_session(&instance, sql, &none, &Scope::AllRows);
            let found = at_once(&instance, sql, &none, &Scope::AllRows);
            assert_eq!(found.is_some(), is_few, "{select}");
        }
        let columns: Vec<String> = (0..17).map(|i| format!("i AS x{i}")).collect();
        let wide = format!("SELECT {} FROM range(256) t(i)", columns.join(", "));
        let instance = instance_of(&wide, None, None);
        let none = integers(&[]);
        for (sql, is_few) in [("SELECT * FROM mart.a", false), ("SELECT x16 FROM mart.a", true)] {
            by_session(&instance, sql, &none, &Scope::AllRows);
            assert_eq!(at_once(&instance, sql, &none, &Scope::AllRows).is_some(), is_few, "{sql}");
        }
    }

    #[test]
    fn what_has_to_be_learnt_of_a_column_first_is_left_to_a_thread() {
        let rows = "SELECT i AS x FROM range(8_200) t(i)";
        let first = instance_of(rows, None, None);
        let (sql, last) = ("SELECT x FROM mart.a WHERE x >= ?", integers(&[8_192]));
        by_session(&first, sql, &last, &Scope::AllRows);
        let found = Some((8_192..8_200).collect());
        assert_eq!(at_once(&first, sql, &last, &Scope::AllRows), found);
        let next = instance_of(rows, None, Some(first.runtime()));
        next.inherit_listings(&first);
        assert_eq!(at_once(&next, sql, &last, &Scope::AllRows), None, "between which bounds x is");
        by_session(&next, sql, &last, &Scope::AllRows);
        assert_eq!(at_once(&next, sql, &last, &Scope::AllRows), found);
    }

    #[test]
    fn a_scope_has_its_rows_alone() {
        let scoping = Scoping { column: "user_id".to_owned(), unscoped: vec!["free".to_owned()] };
        let rows = "SELECT i AS x, 'u' || i % 3 AS user_id FROM range(9) t(i)";
        let instance = instance_of(rows, Some(scoping.clone()), None);
        let (sql, none) = ("SELECT x FROM mart.a WHERE x < 5", integers(&[]));
        by_session(&instance, sql, &none, &Scope::AllRows);
        let ask = |scope: &Scope| at_once(&instance, sql, &none, scope);
        assert_eq!(ask(&Scope::Value("u1".to_owned())), Some(vec![1, 4]));
        assert_eq!(ask(&Scope::Value("nobody".to_owned())), Some(vec![]));
        assert_eq!(ask(&Scope::AllRows), Some(vec![0, 1, 2, 3, 4]));
        let price = "SELECT i AS x, i % 3 / 2.0 AS user_id FROM range(9) t(i)";
        let instance = instance_of(price, Some(scoping), None);
        by_session(&instance, sql, &none, &Scope::Value("0.5".to_owned()));
        let scope = Scope::Value("0.5".to_owned());
        assert_eq!(at_once(&instance, sql, &none, &scope), None, "this scope is DuckDB's to tell");
    }

    #[test]
    fn what_a_listing_gives_is_known_of_the_next_version_with_the_same_columns() {
        let first = instance_of("SELECT i AS x FROM range(9) t(i)", None, None);
        let (sql, none) = ("SELECT * FROM mart.a", integers(&[]));
        by_session(&first, sql, &none, &Scope::AllRows);
        let next = |select: &str| {
            let next = instance_of(select, None, Some(first.runtime()));
            next.inherit_listings(&first);
            at_once(&next, sql, &none, &Scope::AllRows)
        };
        assert_eq!(next("SELECT i + 5 AS x FROM range(2) t(i)"), Some(vec![5, 6]));
        for other in ["SELECT 1::BIGINT AS x, 2 AS y", "SELECT 1 AS x", "SELECT 1::BIGINT AS y"] {
            assert_eq!(next(other), None, "{other}");
        }
    }
}
