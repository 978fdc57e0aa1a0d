//! Which rows of a decoded mart a statement is given.
//!
//! A [`Test`] holds for every row that can matter to the statement, which tests it again. So to
//! pass over a row that fails one changes nothing but the time.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{CHUNK_ROWS, Decoded, PLACE_BITS};

/// What is known of the rows that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Test {
    /// This column has this value, as it is stored.
    Equals { column: usize, value: Box<[u8]> },
    /// This column's value is not NULL and not beyond these bounds.
    Within { column: usize, least: i64, greatest: i64 },
}

/// The tests of one run of a statement, by the number of the mart. A plan outlives the run, so
/// what it is bound to has them here.
#[derive(Debug, Default)]
pub(in crate::engine) struct Restriction(Mutex<Vec<(usize, Vec<Test>)>>);

impl Restriction {
    /// From here on, what begins to read is restricted so.
    pub(in crate::engine) fn set(&self, tests: Vec<(usize, Vec<Test>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tests;
    }

    /// The rows of a mart that are left.
    pub(super) fn select(&self, mart: usize, decoded: &Decoded, backwards: bool) -> Selection {
        let tests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = tests.iter().find(|(number, _)| *number == mart);
        Selection::new(decoded, own.map_or(&[], |(_, tests)| tests), backwards)
    }
}

/// The rows that are left, chunk by chunk, in the order in which they are given out.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// The column by whose index they were found.
    index: Option<usize>,
    visits: Vec<Visit>,
    rows: usize,
}

#[derive(Debug)]
struct Visit {
    chunk: usize,
    /// Where in the index the chunk's rows are.
    rows: Range<usize>,
}

impl Selection {
    pub(super) fn new(decoded: &Decoded, tests: &[Test], backwards: bool) -> Self {
        let mut selection = Self::default();
        selection.fill(decoded, tests, usize::MAX);
        if backwards {
            selection.visits.reverse();
        }
        selection
    }

    /// In the order of the file, if there are at most so many rows. That there are more is told without
    /// going through all of them.
    pub(super) fn of_few(decoded: &Decoded, tests: &[Test], most: usize) -> Option<Self> {
        let mut selection = Self::default();
        selection.fill(decoded, tests, most).then_some(selection)
    }

    /// Whether that was all, and at most so many rows.
    fn fill(&mut self, decoded: &Decoded, tests: &[Test], most: usize) -> bool {
        let may_match = |chunk: usize| {
            tests.iter().all(|test| match test {
                Test::Equals { .. } => true,
                Test::Within { column, least, greatest } => {
                    decoded.bounds(*column).is_none_or(|bounds| {
                        bounds[chunk].is_some_and(|(low, high)| low <= *greatest && high >= *least)
                    })
                }
            })
        };
        let found = tests.iter().filter_map(|test| match test {
            Test::Equals { column, value } => {
                let rows = decoded.columns[*column].parts.index()?.find(value);
                // Of more, it would cost as much to pick them.
                (rows.len() as u64 <= decoded.rows / 2).then_some((*column, rows))
            }
            Test::Within { .. } => None,
        });
        let fewest = found.min_by_key(|(_, rows)| rows.len());
        match fewest {
            None => {
                for chunk in (0..decoded.chunks.len()).filter(|&chunk| may_match(chunk)) {
                    self.visits.push(Visit { chunk, rows: 0..0 });
                    self.rows += decoded.chunks[chunk].rows();
                    if self.rows > most {
                        return false;
                    }
                }
            }
            Some((column, Range { start, end })) => {
                self.index = Some(column);
                let rows = decoded.index_rows(column);
                let mut next = start;
                while next < end {
                    let chunk = rows[next] as usize >> PLACE_BITS;
                    let window = &rows[next..end.min(next + CHUNK_ROWS)];
                    let here = |row: &u32| *row as usize >> PLACE_BITS == chunk;
                    let after = next + window.partition_point(here);
                    if may_match(chunk) {
                        self.visits.push(Visit { chunk, rows: next..after });
                        self.rows += after - next;
                        if self.rows > most {
                            return false;
                        }
                    }
                    next = after;
                }
            }
        }
        true
    }

    /// Puts the chunks in another order; those that have the same key stay as they are.
    pub(super) fn sort_by_key(&mut self, mut key: impl FnMut(usize) -> u128) {
        self.visits.sort_by_cached_key(|visit| key(visit.chunk));
    }

    /// How many chunks have such rows.
    pub(super) fn len(&self) -> usize {
        self.visits.len()
    }

    /// How many such rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The number of the chunk at a place, and the numbers of its rows; all of them when `None`.
    pub(super) fn visit<'d>(
        &self,
        decoded: &'d Decoded,
        place: usize,
    ) -> (usize, Option<&'d [u32]>) {
        let Visit { chunk, rows } = &self.visits[place];
        let rows = self.index.map(|column| &decoded.index_rows(column)[rows.clone()]);
        (*chunk, rows.filter(|rows| rows.len() < decoded.chunks[*chunk].rows()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::decoded::Part;
    use crate::engine::decoded::tests::{decode, given};

    /// Three chunks: `id` is stored from low to high, of `name` each tenth row has one, the others
    /// have another each, and `none` is NULL but in the last chunk.
    fn mart() -> Arc<Decoded> {
        Arc::new(decode(
            "SELECT i AS id, CASE i % 10 WHEN 3 THEN 'tenth' WHEN 4 THEN NULL ELSE 'n' || i END AS name,
                    CASE WHEN i >= 4096 THEN i::INTEGER END AS none
             FROM range(6000) t(i)",
        ))
    }

    fn equals(column: usize, value: &[u8]) -> Test {
        Test::Equals { column, value: value.into() }
    }

    fn within(column: usize, least: i64, greatest: i64) -> Test {
        Test::Within { column, least, greatest }
    }

    fn chunks(mart: &Decoded, tests: &[Test]) -> Vec<usize> {
        let selection = Selection::new(mart, tests, false);
        (0..selection.len()).map(|place| selection.visit(mart, place).0).collect()
    }

    #[test]
    fn chunks_that_lie_beyond_the_bounds_are_passed_over() {
        let mart = mart();
        for (tests, expected) in [
            (vec![], vec![0, 1, 2]),
            (vec![within(0, i64::MIN, 0)], vec![0]),
            (vec![within(0, 2047, 2048)], vec![0, 1]),
            (vec![within(0, 4096, i64::MAX)], vec![2]),
            (vec![within(0, 6000, i64::MAX)], vec![]),
            (vec![within(0, i64::MIN, -1)], vec![]),
            (vec![within(0, 1, 5999), within(2, i64::MIN, i64::MAX)], vec![2]),
            // Of a text nothing is known but its index.
            (vec![within(1, 0, 0), equals(1, b"tenth")], vec![0, 1, 2]),
        ] {
            assert_eq!(chunks(&mart, &tests), expected, "{tests:?}");
        }
    }

    #[test]
    fn rows_are_picked_by_the_index_that_leaves_the_fewest() {
        let mart = mart();
        mart.make(1, Part::Index);
        mart.make(0, Part::Index);
        let ids = |tests: &[Test], backwards| given(&mart, backwards, tests, "SELECT id FROM MART");
        let tenth: Vec<i64> = (3..6000).step_by(10).collect();
        assert_eq!(ids(&[equals(1, b"tenth")], false), tenth);
        let (first, rest) = tenth.split_at(205);
        let (second, third) = rest.split_at(205);
        assert_eq!(ids(&[equals(1, b"tenth")], true), [third, second, first].concat());
        assert_eq!(ids(&[equals(1, b"n5000")], false), [5000]);
        assert_eq!(ids(&[equals(1, b"nobody")], false), [0_i64; 0]);
        assert_eq!(ids(&[equals(1, b"tenth"), equals(0, &13_i64.to_le_bytes())], false), [13]);
        assert_eq!(ids(&[equals(1, b"tenth"), within(0, 4096, 9999)], false), third);
        let numbers = given(&mart, false, &[equals(1, b"tenth")], "SELECT \"martd:row\" FROM ROWS");
        assert_eq!(numbers, tenth);
        let text = given(
            &mart,
            false,
            &[equals(1, b"n5000")],
            "SELECT id FROM MART WHERE name = 'n5000' AND none = 5000",
        );
        assert_eq!(text, [5000]);
    }

    #[test]
    fn it_is_told_whether_few_rows_are_left() {
        let mart = mart();
        mart.make(1, Part::Index);
        let tenth = equals(1, b"tenth");
        for (tests, rows) in [
            (vec![], 6_000),
            (vec![within(0, 2_047, 2_048)], 4_096),
            (vec![tenth.clone()], 600),
            (vec![tenth, within(0, 4_096, 9_999)], 190),
            (vec![equals(1, b"nobody")], 0),
        ] {
            let few = |most| Selection::of_few(&mart, &tests, most).map(|few| few.rows());
            assert_eq!(Selection::new(&mart, &tests, false).rows(), rows);
            assert_eq!((few(rows), few(usize::MAX)), (Some(rows), Some(rows)), "{tests:?}");
            assert_eq!(rows.checked_sub(1).and_then(few), None, "{tests:?}");
        }
    }

    #[test]
    fn what_most_rows_have_is_not_picked() {
        let most =
            "SELECT i AS id, CASE WHEN i % 3 = 0 THEN 'a' ELSE 'b' END AS x FROM range(6000) t(i)";
        let mart = Arc::new(decode(most));
        mart.make(1, Part::Index);
        let count =
            |value: &[u8]| given(&mart, false, &[equals(1, value)], "SELECT id FROM MART").len();
        assert_eq!((count(b"a"), count(b"b")), (2000, 6000));
    }
}
