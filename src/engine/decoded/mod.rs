//! Marts that are held decoded: the vectors that DuckDB made of a file, kept for the statements that
//! follow.
//!
//! Most of a statement over Parquet goes into decoding, and always with the same result. A mart that
//! is asked for again and again is therefore decoded once, and a [table function](function) gives
//! out its vectors by reference: nothing is copied, and snapshots that have the mart in common share
//! them, which a DuckDB table could not. The vectors are as immutable as the pin that they came from.
//!
//! Because they never change, martd knows more of them than DuckDB could: between which bounds each
//! chunk lies, and what statements would be faster with ([`Part`]), such as which rows hold a value.
//! Rows that a statement would not look at twice are not given to it
//! ([`Selection`](selection::Selection)), and the columns that it only passes on are left out of it:
//! the statement gives the [numbers of rows](Decoded::rows) instead.
#![allow(
    unsafe_code,
    reason = "gathers from vectors of DuckDB, of which every row is checked to exist"
)]

mod dictionary;
mod function;
mod index;
mod lookup;
mod order;
mod parts;
mod selection;
mod texts;

use std::ffi::CString;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use duckdb::ffi;

use super::chunk::{CHUNK_ROWS, Chunk};
use super::duck::{Connection, DuckError};
use super::quote_literal;
use super::types::Type;
use super::vector::{Memory, SHORT_BYTES};
use crate::background::yield_to_requests;

pub(super) use function::{
    Picked, ROW_COLUMN, ROWS_SCHEMA, Way, install, numbered_table_name, pick, table_name,
};
use index::{Bounds, Index, bounds};
pub(super) use lookup::Lookup;
pub(super) use order::Order;
pub(super) use parts::{Part, Parts};
pub(super) use selection::{Restriction, Test};
pub(crate) use texts::Texts;

/// The number of a row is that of its chunk, and in these lower bits its place there.
const PLACE_BITS: u32 = CHUNK_ROWS.trailing_zeros();

/// How much memory decoded marts may take, over all snapshots that are alive.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let Budget { limit, used } = &*self.budget;
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| used <= limit)
        });
        self.bytes += if taken.is_ok() { bytes } else { 0 };
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The vectors of one mart.
#[derive(Debug)]
pub(super) struct Decoded {
    columns: Vec<DecodedColumn>,
    chunks: Vec<Chunk>,
    rows: u64,
    share: Share,
}

#[derive(Debug)]
pub(super) struct DecodedColumn {
    name: CString,
    ty: LogicalType,
    kind: Type,
    /// Whether the rows are stored by it upwards for the most part, where that is known.
    pub(super) ascends: OnceLock<bool>,
    /// What is made of it when statements would be faster with it.
    pub(super) parts: Parts,
    bounds: OnceLock<Option<Bounds>>,
}

/// Owned, and freed on drop.
#[derive(Debug)]
struct LogicalType(ffi::duckdb_logical_type);

impl Drop for LogicalType {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_logical_type(&raw mut self.0) };
    }
}

// SAFETY: nothing here changes once it is made, and DuckDB counts references to vectors atomically.
// Chunks and types of the C API belong to no connection and no database.
unsafe impl Send for Decoded {}
// SAFETY: as above.
unsafe impl Sync for Decoded {}

/// Why a mart is not held decoded.
#[derive(Debug)]
pub(super) enum Declined {
    /// There is not enough of the budget left.
    OverBudget,
    /// It has a column whose vectors are made of others, which are not safe to share.
    Nested,
    /// Its file may change, or is not what it shows.
    NotSealed,
    /// DuckDB's reason.
    Failed(DuckError),
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverBudget => f.write_str("MARTD_DECODED_MEMORY is used up"),
            Self::Nested => f.write_str("it has a column of a nested type"),
            Self::NotSealed => f.write_str("its file is not copied, or shown as empty"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl From<DuckError> for Declined {
    fn from(error: DuckError) -> Self {
        Self::Failed(error)
    }
}

impl Decoded {
    /// Decodes the file at this path, of which every value has been decoded before by a child: so
    /// many rows.
    pub(super) fn read(
        connection: &Connection,
        path: &str,
        rows: u64,
        budget: &Arc<Budget>,
    ) -> Result<Self, Declined> {
        let source = format!("read_parquet({})", quote_literal(path));
        let mut statement = connection.prepare(&format!("FROM {source}"))?;
        let described = statement.columns();
        let types: Vec<Type> = described.iter().map(|column| column.ty.clone()).collect();
        let widths: Vec<usize> =
            types.iter().map(Type::width).collect::<Option<_>>().ok_or(Declined::Nested)?;
        // Told before most of it has been decoded in vain.
        let least = rows.saturating_mul(widths.iter().sum::<usize>() as u64);
        if least > budget.limit.saturating_sub(budget.used()) {
            return Err(Declined::OverBudget);
        }
        let mut columns = Vec::with_capacity(types.len());
        for (index, kind) in types.iter().enumerate() {
            let ty = LogicalType(statement.logical_type(index));
            let name = CString::new(described[index].name.as_str());
            let name = name.map_err(|_| DuckError("a column's name holds a NUL".to_owned()))?;
            columns.push(DecodedColumn {
                name,
                ty,
                kind: kind.clone(),
                ascends: OnceLock::new(),
                parts: Parts::default(),
                bounds: OnceLock::new(),
            });
        }
        let mut file = statement.execute()?;
        let mut share = Share::of(budget);
        let (mut chunks, mut rows) = (Vec::new(), 0);
        while let Some(chunk) = file.next_chunk()? {
            if !share.grow(bytes(&chunk, &types, &widths)) {
                return Err(Declined::OverBudget);
            }
            rows += chunk.rows() as u64;
            chunks.push(chunk);
            yield_to_requests();
        }
        Ok(Self { columns, chunks, rows, share })
    }

    /// Its columns.
    pub(super) fn columns(&self) -> &[DecodedColumn] {
        &self.columns
    }

    /// Its rows.
    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Whether the number of every row, and how many there are, are numbers of 32 bits.
    fn has_short_numbers(&self) -> bool {
        u32::try_from(self.chunks.len() << PLACE_BITS).is_ok()
    }

    /// Its rows, for who looks at all of them while no request waits for that.
    fn steps(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().inspect(|_| yield_to_requests())
    }

    /// The first value of each chunk, of a column whose values are integers to DuckDB (as dates and
    /// timestamps are); NULLs are left out.
    pub(super) fn first_values(&self, column: usize) -> impl Iterator<Item = i64> {
        let kind = &self.columns[column].kind;
        self.chunks.iter().filter_map(move |chunk| {
            let vector = chunk.column(column);
            if chunk.rows() == 0 || vector.is_null(0) {
                return None;
            }
            match kind {
                Type::Integer | Type::Date => Some(i64::from(vector.values::<i32>()[0])),
                Type::BigInt
                | Type::Timestamp
                | Type::TimestampS
                | Type::TimestampMs
                | Type::TimestampNs
                | Type::TimestampTz => Some(vector.values::<i64>()[0]),
                _ => None,
            }
        })
    }

    /// A column's type.
    pub(super) fn kind(&self, column: usize) -> &Type {
        &self.columns[column].kind
    }

    /// The column of this name, as DuckDB compares names.
    pub(super) fn column_named(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name().eq_ignore_ascii_case(name))
    }

    /// The rows of a column's index, which it has.
    fn index_rows(&self, column: usize) -> &[u32] {
        self.columns[column].parts.index().map_or(&[], Index::rows)
    }

    /// Between which bounds the values of each chunk are, of a column of integers, dates or
    /// timestamps.
    fn bounds(&self, column: usize) -> Option<&Bounds> {
        self.columns[column].bounds.get_or_init(|| bounds(self, column)).as_ref()
    }

    /// Whether the bounds that a test asks for are known, or found at once.
    pub(super) fn is_bounded(&self, test: &Test) -> bool {
        let Test::Within { column, .. } = test else { return true };
        self.chunks.len() <= 1 || self.columns[*column].bounds.get().is_some()
    }

    /// These columns of the rows with these numbers.
    ///
    /// # Panics
    /// When there is no such row.
    pub(super) fn rows(self: &Arc<Self>, columns: &[usize], numbers: &[i64]) -> Chunk {
        let first = numbers.first().map_or(0, |&number| number as usize);
        let successive = numbers.iter().zip(first..).all(|(&own, next)| own as usize == next);
        if successive && first.is_multiple_of(CHUNK_ROWS) && !numbers.is_empty() {
            return Chunk::part_of(self, first >> PLACE_BITS, columns, numbers.len());
        }
        let runs = self.runs(numbers);
        let widths: Vec<usize> = columns
            .iter()
            .map(|&column| self.columns[column].kind.width().expect("was not declined"))
            .collect();
        let words_for = |width: usize| (numbers.len() * width).div_ceil(size_of::<u64>());
        let mask_words = numbers.len().div_ceil(u64::BITS as usize);
        let total: usize = widths.iter().map(|&width| words_for(width) + mask_words).sum();
        let mut words = vec![0_u64; total];
        let mut rest = words.as_mut_slice();
        let mut gathered = Vec::with_capacity(columns.len());
        for (&column, &width) in columns.iter().zip(&widths) {
            let (values, after) = rest.split_at_mut(words_for(width));
            let (mask, after) = after.split_at_mut(mask_words);
            rest = after;
            for run in &runs {
                let from = run.chunk.memory(column).data;
                // SAFETY: the width is that of the column's type, the runs are rows of its chunks,
                // and together they are as many as there is room for.
                unsafe {
                    let to = values.as_mut_ptr().cast::<u8>().add(run.place * width);
                    to.copy_from_nonoverlapping(from.add(run.row * width), run.len * width);
                }
            }
            let has_nulls = runs.iter().any(|run| !run.chunk.memory(column).validity.is_null());
            if has_nulls {
                for run in &runs {
                    let vector = run.chunk.column(column);
                    for (place, row) in (run.place..).zip(run.row..run.row + run.len) {
                        mask[place / 64] |= u64::from(!vector.is_null(row)) << (place % 64);
                    }
                }
            }
            gathered.push(Memory {
                raw: std::ptr::null_mut(),
                data: values.as_ptr().cast(),
                validity: if has_nulls { mask.as_ptr() } else { std::ptr::null() },
                parts: std::ptr::null(),
                chunk: 0,
            });
        }
        // SAFETY: the columns lie in the words; texts among them point into this mart.
        unsafe { Chunk::gathered(self, words, gathered, numbers.len()) }
    }

    /// Rows that follow each other in a chunk, as one.
    fn runs(&self, numbers: &[i64]) -> Vec<Run<'_>> {
        let mut runs: Vec<Run<'_>> = Vec::new();
        for (place, &number) in numbers.iter().enumerate() {
            let chunk = &self.chunks[number as usize >> PLACE_BITS];
            let row = number as usize & (CHUNK_ROWS - 1);
            assert!(row < chunk.rows());
            match runs.last_mut() {
                Some(last) if std::ptr::eq(last.chunk, chunk) && last.row + last.len == row => {
                    last.len += 1;
                }
                _ => runs.push(Run { chunk, row, len: 1, place }),
            }
        }
        runs
    }
}

/// Rows of a chunk, and at which place of what is gathered they begin.
struct Run<'c> {
    chunk: &'c Chunk,
    row: usize,
    len: usize,
    place: usize,
}

impl DecodedColumn {
    /// The column's name.
    pub(super) fn name(&self) -> &str {
        self.name.to_str().expect("made from a string")
    }
}

/// The memory that a chunk takes.
fn bytes(chunk: &Chunk, types: &[Type], widths: &[usize]) -> u64 {
    let mut bytes = 0;
    for (index, (ty, width)) in types.iter().zip(widths).enumerate() {
        bytes += CHUNK_ROWS * width + CHUNK_ROWS / 8;
        if ty.is_text() {
            let texts = chunk.column(index);
            let present = texts.runs(0..chunk.rows()).filter(|(null, _)| !null);
            bytes += present
                .flat_map(|(_, rows)| texts.lengths(rows))
                .filter(|&length| length > SHORT_BYTES)
                .sum::<usize>();
        }
    }
    bytes as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::count_rows;
    use crate::engine::duck::Database;

    const PLENTY: u64 = 1 << 30;

    fn database() -> (Arc<Database>, Connection) {
        let database =
            Database::open_in_memory(&[("threads", "1".to_owned())]).expect("DuckDB opens");
        let connection = database.connect().expect("a connection");
        (database, connection)
    }

    fn read(select: &str, budget: &Arc<Budget>) -> Result<Decoded, Declined> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.parquet").display().to_string();
        let (_, connection) = database();
        connection.execute(&format!("COPY ({select}) TO '{path}'")).expect("a file");
        let rows = count_rows(&connection, &format!("'{path}'")).expect("a count");
        Decoded::read(&connection, &path, rows, budget)
    }

    /// A mart of these rows.
    pub(in crate::engine) fn decode(select: &str) -> Decoded {
        read(select, &Budget::new(PLENTY)).expect("it can be held")
    }

    /// The values of the first column of what a statement over this mart gives.
    fn values(decoded: Decoded, backwards: bool, sql: &str) -> Vec<i64> {
        given(&Arc::new(decoded), backwards, &[], sql)
    }

    /// The same of the rows that pass these tests, where ROWS is the mart with their numbers.
    pub(super) fn given(
        decoded: &Arc<Decoded>,
        backwards: bool,
        tests: &[Test],
        sql: &str,
    ) -> Vec<i64> {
        let (database, connection) = database();
        install(&database, &connection).expect("installed");
        let restriction = Arc::<Restriction>::default();
        restriction.set(vec![(0, tests.to_vec())]);
        let paths = Arc::from([c"nowhere.parquet".to_owned()]);
        let way = Way { backwards, hashes: true };
        let _picked = pick(&paths, &[(0, Arc::clone(decoded))], way, &restriction);
        let sql = sql.replace("MART", &table_name(0)).replace("ROWS", &numbered_table_name(0));
        let mut statement = connection.prepare(&sql).expect("bound");
        let mut rows = statement.execute().expect("it runs");
        let mut values = Vec::new();
        while let Some(chunk) = rows.next_chunk().expect("rows") {
            values.extend_from_slice(chunk.column(0).values::<i64>());
        }
        values
    }

    #[test]
    fn rows_come_in_the_order_of_the_file_or_from_the_last_chunk_on() {
        let numbers = || decode("SELECT i, i::VARCHAR AS t FROM range(5000) t(i)");
        assert_eq!(values(numbers(), false, "SELECT i FROM MART"), (0..5000).collect::<Vec<_>>());
        let backwards = values(numbers(), true, "SELECT i FROM MART");
        let expected: Vec<i64> = (4096..5000).chain(2048..4096).chain(0..2048).collect();
        assert_eq!(backwards, expected);
        assert_eq!(values(numbers(), true, "SELECT count(*) FROM MART"), [5000]);
        let none = decode("SELECT 1::BIGINT AS i LIMIT 0");
        assert!(values(none, true, "SELECT i FROM MART").is_empty());
    }

    #[test]
    fn without_a_snapshot_that_says_what_it_reads_there_are_no_marts() {
        let (database, connection) = database();
        install(&database, &connection).expect("installed");
        let sql = format!("FROM {}", table_name(0));
        let error = connection.prepare(&sql).expect_err("nothing was picked");
        assert!(error.0.contains("martd:0"), "{error}");
        drop(pick(
            &Arc::from([c"nowhere.parquet".to_owned()]),
            &[],
            Way::default(),
            &Arc::default(),
        ));
        assert!(connection.prepare(&sql).is_err_and(|error| error.0.contains("martd:0")));
        let _picked =
            pick(&Arc::from([c"nowhere".to_owned()]), &[], Way::default(), &Arc::default());
        assert!(connection.prepare(&sql).is_err_and(|error| error.0.contains("nowhere")));
    }

    #[test]
    fn rows_are_found_by_their_numbers() {
        let decoded = Arc::new(decode(
            "SELECT i, CASE WHEN i % 3 > 0 THEN i::SMALLINT END AS small,
                    CASE WHEN i % 5 > 0 THEN 'number ' || i || ' of many' END AS text
             FROM range(5000) t(i)",
        ));
        let numbers = given(&decoded, false, &[], "SELECT \"martd:row\" FROM ROWS");
        let all: Vec<i64> = (0..2048).chain(2048..4096).chain(4096..5000).collect();
        assert_eq!(numbers, all);
        let sql = "SELECT \"martd:row\" FROM ROWS WHERE i % 999 = 7 ORDER BY i DESC";
        let some = given(&decoded, false, &[], sql);
        assert_eq!(some, [4003 + 999, 4003, 3004, 2005, 1006, 7][1..]);
        let chosen: [&[i64]; 5] = [&some, &all[..2048], &all[2048..3000], &all[1..70], &[]];
        for numbers in chosen {
            let chunk = decoded.rows(&[2, 0, 1], numbers);
            assert_eq!(chunk.rows(), numbers.len());
            let [texts, ids, small] = chunk.columns()[..] else { panic!("three columns") };
            for (row, &i) in numbers.iter().enumerate() {
                assert_eq!(ids.values::<i64>()[row], i);
                assert_eq!(small.is_null(row), i % 3 == 0, "{i}");
                assert!(small.is_null(row) || small.values::<i16>()[row] == i as i16, "{i}");
                assert_eq!(texts.is_null(row), i % 5 == 0, "{i}");
                let text = format!("number {i} of many");
                assert!(texts.is_null(row) || texts.bytes(row) == text.as_bytes(), "{i}");
            }
        }
    }

    #[test]
    fn the_budget_is_kept_and_given_back() {
        let budget = Budget::new(1 << 20);
        let large = "SELECT repeat('x', 2000) AS t FROM range(1000)";
        assert!(matches!(read(large, &budget), Err(Declined::OverBudget)));
        assert!(matches!(
            read("SELECT i FROM range(1000000) t(i)", &budget),
            Err(Declined::OverBudget)
        ));
        assert_eq!(budget.used(), 0);
        let small = read("SELECT i FROM range(10) t(i)", &budget).expect("it can be held");
        assert!((10 * 8..1 << 20).contains(&budget.used()));
        drop(small);
        assert_eq!(budget.used(), 0);
        assert!(matches!(read("SELECT [1] AS l", &budget), Err(Declined::Nested)));
        let two = read("SELECT i % 7 AS a, i % 5 AS b FROM range(48_000) t(i)", &budget)
            .expect("it fits");
        let before = budget.used();
        (0..2).for_each(|column| two.make(column, Part::Index));
        assert_eq!(
            two.made().collect::<Vec<_>>(),
            [(0, Part::Index)],
            "no room for a second index"
        );
        assert!(budget.used() > before && budget.used() <= 1 << 20);
        drop(two);
        assert_eq!(budget.used(), 0);
        let texts = "SELECT repeat('a', 50_000) AS t FROM range(8)";
        let decoded = read(texts, &budget).expect("it fits");
        let before = budget.used();
        decoded.make(0, Part::Dictionary);
        let more = budget.used() - before;
        assert!(more > 50_000 && decoded.count(Part::Dictionary) == 1);
        let exact = read(texts, &Budget::new(before + more - 1)).expect("it fits");
        exact.make(0, Part::Dictionary);
        assert_eq!(exact.made().count(), 0, "no room");
        let before = budget.used();
        decoded.make(0, Part::Texts);
        let more = budget.used() - before;
        assert!(more > 8 * 50_000 && decoded.count(Part::Texts) == 1);
        drop(decoded);
        assert_eq!(budget.used(), 0);
        let exact = Budget::new(before + more - 1);
        let decoded = read(texts, &exact).expect("it fits");
        decoded.make(0, Part::Dictionary);
        decoded.make(0, Part::Texts);
        assert_eq!((decoded.count(Part::Texts), exact.used()), (0, before), "no room");
        let ids = read("SELECT i FROM range(1000) t(i)", &Budget::new(PLENTY)).expect("it fits");
        let narrow = Budget::new(ids.share.bytes + 10_000);
        let same = read("SELECT i FROM range(1000) t(i)", &narrow).expect("it fits");
        let unique = [&ids, &same].map(|decoded| {
            decoded.make(0, Part::Uniqueness);
            decoded.columns[0].parts.is_unique()
        });
        assert_eq!(unique, [Some(true), Some(false)], "no room to find out");
        assert_eq!(narrow.used(), ids.share.bytes, "what was taken for it is given back");
    }
}
