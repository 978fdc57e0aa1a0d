//! Rows that are found without DuckDB: those of a listing of one mart, where tests tell all that
//! its WHERE asks for.
//!
//! DuckDB plans a statement anew each time that it is run with parameters, for longer than it takes
//! to look through a few thousand values.

use std::sync::Arc;
use std::vec;

use super::order::{First, Order};
use super::selection::{Selection, Test};
use super::{CHUNK_ROWS, Decoded, PLACE_BITS};
use crate::engine::chunk::Chunk;
use crate::engine::types::Type;
use crate::engine::vector::{Plain, Vector};

/// So many rows are put in order at most. DuckDB has limits for what takes more memory.
const MOST_ORDERED: usize = 64 << 10;
/// Of rows that are not told apart by their ranks alone, so many are looked at.
pub(super) const MOST_COMPARED: usize = 4 << 10;
/// Of more rows, chunks that lie beyond the page are passed over.
const MANY_ROWS: usize = 2 * CHUNK_ROWS;
/// Chunks that are looked through at a time.
const CHUNKS_AT_ONCE: usize = 64;

/// The rows of a mart that pass all of these tests, in the order of the file or another.
#[derive(Debug)]
pub(in crate::engine) struct Lookup {
    mart: Arc<Decoded>,
    tests: Vec<Test>,
    selection: Selection,
    /// The chunk of the selection that comes next.
    place: usize,
    /// Rows that are yet to be passed over, and those that are yet to be given.
    offset: u64,
    limit: u64,
    ordered: Option<Ordered>,
}

/// The rows of a lookup in another order than the file's.
#[derive(Debug)]
enum Ordered {
    /// Rows are looked through for the first ones.
    Searched(First),
    Found(vec::IntoIter<i64>),
}

impl Lookup {
    /// `None` if more rows than this would have to be looked at.
    pub(in crate::engine) fn new(
        mart: &Arc<Decoded>,
        tests: Vec<Test>,
        (offset, limit): (u64, u64),
        most: usize,
    ) -> Option<Self> {
        let selection = Selection::of_few(mart, &tests, most)?;
        let mart = Arc::clone(mart);
        Some(Self { mart, tests, selection, place: 0, offset, limit, ordered: None })
    }

    /// The same in an order. `None` where that is faster, or safer, with DuckDB.
    pub(in crate::engine) fn ordered_by(mut self, order: Order) -> Option<Self> {
        let rows = self.selection.rows();
        let wanted = usize::try_from(self.offset.saturating_add(self.limit)).unwrap_or(usize::MAX);
        let most = rows.min(wanted);
        if most > MOST_ORDERED || !(order.is_decisive || rows <= MOST_COMPARED) {
            return None;
        }
        self.ordered = Some(Ordered::Searched(First::new(order, most)));
        Some(self)
    }

    /// These columns of the next rows, at most 2,048; `None` at the end, and none of them where there
    /// are none among many.
    pub(in crate::engine) fn next_chunk(&mut self, columns: &[usize]) -> Option<Chunk> {
        if self.limit == 0 {
            return None;
        }
        match self.ordered.take() {
            None => self.next_stored(columns),
            Some(Ordered::Searched(first)) => {
                self.ordered = Some(self.search(first));
                Some(self.mart.rows(columns, &[]))
            }
            Some(Ordered::Found(mut rows)) => {
                let numbers: Vec<i64> = rows.by_ref().take(CHUNK_ROWS).collect();
                self.ordered = Some(Ordered::Found(rows));
                (!numbers.is_empty()).then(|| self.mart.rows(columns, &numbers))
            }
        }
    }

    /// Looks for the first rows in some chunks more.
    fn search(&mut self, mut first: First) -> Ordered {
        let by_chunk = self.selection.rows() > MANY_ROWS;
        if self.place == 0 && by_chunk {
            self.selection.sort_by_key(|chunk| first.order.least_rank(&self.mart, chunk));
        }
        let end = self.selection.len().min(self.place + CHUNKS_AT_ONCE);
        let mut is_found = end == self.selection.len();
        for place in self.place..end {
            let (number, picked) = self.selection.visit(&self.mart, place);
            if by_chunk && first.is_before(&self.mart, number) {
                is_found = true;
                break;
            }
            first.show(&self.mart, number, &self.passing(number, picked));
        }
        self.place = end;
        if !is_found {
            return Ordered::Searched(first);
        }
        let mut rows = first.take(&self.mart).into_iter();
        if let Some(last) = usize::try_from(self.offset).unwrap_or(usize::MAX).checked_sub(1) {
            rows.nth(last);
        }
        Ordered::Found(rows)
    }

    /// The next rows in the order of the file.
    fn next_stored(&mut self, columns: &[usize]) -> Option<Chunk> {
        let end = self.selection.len().min(self.place + CHUNKS_AT_ONCE);
        if self.place == end {
            return None;
        }
        let mut numbers: Vec<i64> = Vec::new();
        while self.place < end && (numbers.len() as u64) < self.limit {
            let (number, picked) = self.selection.visit(&self.mart, self.place);
            let room = CHUNK_ROWS - numbers.len();
            if picked.map_or(self.mart.chunks[number].rows(), <[u32]>::len) > room {
                break;
            }
            let rows = self.passing(number, picked);
            self.place += 1;
            let passed_over = self.offset.min(rows.len() as u64);
            self.offset -= passed_over;
            let first = (number << PLACE_BITS) as i64;
            numbers.extend(rows[passed_over as usize..].iter().map(|&row| first + i64::from(row)));
        }
        numbers.truncate(usize::try_from(self.limit).unwrap_or(usize::MAX));
        self.limit -= numbers.len() as u64;
        Some(self.mart.rows(columns, &numbers))
    }

    /// The rows of a chunk that pass, of these or of all.
    fn passing(&self, number: usize, picked: Option<&[u32]>) -> Vec<u32> {
        let chunk = &self.mart.chunks[number];
        let mut rows: Vec<u32> = match picked {
            Some(picked) => picked.iter().map(|number| number & (CHUNK_ROWS - 1) as u32).collect(),
            None => (0..chunk.rows() as u32).collect(),
        };
        for test in &self.tests {
            if !self.mart.all_pass(test, number) {
                let column = match test {
                    Test::Equals { column, .. } | Test::Within { column, .. } => *column,
                };
                retain(test, self.mart.kind(column), &chunk.column(column), &mut rows);
            }
        }
        rows
    }
}

impl Decoded {
    /// Whether every row of a chunk is known to pass.
    fn all_pass(&self, test: &Test, chunk: usize) -> bool {
        let Test::Within { column, least, greatest } = test else { return false };
        self.chunks[chunk].memory(*column).validity.is_null()
            && self.bounds(*column).is_some_and(|bounds| {
                bounds[chunk].is_some_and(|(low, high)| low >= *least && high <= *greatest)
            })
    }
}

/// Keeps the rows of a vector that pass.
fn retain(test: &Test, kind: &Type, vector: &Vector<'_>, rows: &mut Vec<u32>) {
    rows.retain(|&row| !vector.is_null(row as usize));
    match test {
        Test::Equals { value, .. } if *kind == Type::Varchar => {
            rows.retain(|&row| vector.bytes(row as usize) == &**value);
        }
        Test::Equals { value, .. } => {
            let width = kind.width().expect("is not nested");
            let values = vector.plain_bytes(width, 0..vector.len());
            rows.retain(|&row| values[row as usize * width..][..width] == **value);
        }
        Test::Within { least, greatest, .. } => {
            let bounds = (*least, *greatest);
            match kind {
                Type::TinyInt => within::<i8>(vector, bounds, rows),
                Type::SmallInt => within::<i16>(vector, bounds, rows),
                Type::Integer | Type::Date => within::<i32>(vector, bounds, rows),
                Type::UTinyInt => within::<u8>(vector, bounds, rows),
                Type::USmallInt => within::<u16>(vector, bounds, rows),
                Type::UInteger => within::<u32>(vector, bounds, rows),
                _ => within::<i64>(vector, bounds, rows),
            }
        }
    }
}

fn within<T: Plain + Into<i64>>(
    vector: &Vector<'_>,
    (least, greatest): (i64, i64),
    rows: &mut Vec<u32>,
) {
    let values = vector.values::<T>();
    rows.retain(|&row| (least..=greatest).contains(&values[row as usize].into()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::decoded::Part;
    use crate::engine::decoded::tests::decode;

    /// Three chunks, of which each third row has a NULL.
    fn mart() -> Arc<Decoded> {
        Arc::new(decode(
            "SELECT i AS id, CASE WHEN i % 3 > 0 THEN (i % 100)::TINYINT END AS tiny,
                    't' || i % 50 AS text
             FROM range(6000) t(i)",
        ))
    }

    fn ids(mart: &Arc<Decoded>, tests: &[Test], offset: u64, limit: u64) -> Vec<i64> {
        let lookup = Lookup::new(mart, tests.to_vec(), (offset, limit), usize::MAX);
        let mut lookup = lookup.expect("there is no bound");
        let mut ids = Vec::new();
        while let Some(chunk) = lookup.next_chunk(&[2, 0]) {
            assert!(chunk.rows() <= CHUNK_ROWS);
            ids.extend_from_slice(chunk.column(1).values::<i64>());
        }
        ids
    }

    #[test]
    fn a_page_has_the_rows_that_pass_in_the_order_of_the_file() {
        let mart = mart();
        let tiny = Test::Within { column: 1, least: 40, greatest: 41 };
        let text = Test::Equals { column: 2, value: b"t40"[..].into() };
        let present = Test::Within { column: 1, least: 0, greatest: 99 };
        let late = Test::Within { column: 0, least: 4095, greatest: i64::MAX };
        let all = |tests: &[&Test]| -> Vec<i64> {
            let passes = |i: i64, test: &&Test| match test {
                Test::Equals { .. } => i % 50 == 40,
                Test::Within { column: 0, least, .. } => i >= *least,
                Test::Within { least, greatest, .. } => {
                    i % 3 > 0 && (*least..=*greatest).contains(&(i % 100))
                }
            };
            (0..6000).filter(|&i| tests.iter().all(|test| passes(i, test))).collect()
        };
        let choices: [&[&Test]; 6] =
            [&[], &[&tiny], &[&present], &[&text], &[&late], &[&text, &tiny, &late]];
        for with_index in [false, true] {
            for tests in choices {
                let expected = all(tests);
                let own: Vec<Test> = tests.iter().map(|&test| test.clone()).collect();
                assert_eq!(ids(&mart, &own, 0, u64::MAX), expected, "{own:?} {with_index}");
                for (offset, limit) in
                    [(0, 0), (0, 1), (1, 10), (2047, 3000), (5, u64::MAX), (9999, 1)]
                {
                    let page: Vec<i64> = expected
                        .iter()
                        .skip(offset as usize)
                        .take(limit as usize)
                        .copied()
                        .collect();
                    assert_eq!(ids(&mart, &own, offset, limit), page, "{own:?} {offset} {limit}");
                }
            }
            mart.make(2, Part::Index);
        }
    }
}
