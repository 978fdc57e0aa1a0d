//! What is made of a decoded column for the statements that are faster with it.
//!
//! None of it is there at first. A statement that would have been faster wishes for it, a thread that no
//! request waits for makes it, and the next version of the mart has it before it is served.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use super::dictionary::Dictionary;
use super::index::{Index, has_one_form, is_indexed, is_unique};
use super::texts::{Joined, Texts};
use super::{Decoded, Share};
use crate::engine::types::Type;

/// Fewer rows are looked through as fast as looked up.
const WORTH_AN_INDEX: u64 = 2 * super::CHUNK_ROWS as u64;

/// What can be made of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Part {
    /// Which rows have a value, for statements that look for one.
    Index,
    /// Each text once, for statements that hash texts which many rows have in common.
    Dictionary,
    /// The texts as Arrow has them, for Arrow answers that list whole chunks.
    Texts,
    /// Whether each value is there once: then a page can be read from its end.
    Uniqueness,
}

impl Part {
    const ALL: [Self; 4] = [Self::Index, Self::Dictionary, Self::Texts, Self::Uniqueness];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What there is of that. Empty inside where it is known that there cannot be any: its kind does not
/// have it, or the budget has no room.
#[derive(Debug, Default)]
pub(in crate::engine) struct Parts {
    /// The bits of those that somebody wishes for.
    wishes: AtomicU8,
    /// The bits of those that are made, or about to be.
    taken: AtomicU8,
    index: OnceLock<Option<Index>>,
    dictionary: OnceLock<Option<Dictionary>>,
    joined: OnceLock<Option<Joined>>,
    is_unique: OnceLock<bool>,
}

impl Parts {
    /// A statement would have been faster with it.
    pub(in crate::engine) fn wish(&self, part: Part) {
        if self.taken.load(Ordering::Relaxed) & part.bit() == 0 {
            self.wishes.fetch_or(part.bit(), Ordering::Relaxed);
        }
    }

    /// What was wished for; each part once.
    fn take_wishes(&self) -> impl Iterator<Item = Part> {
        let taken = match self.wishes.load(Ordering::Relaxed) {
            0 => 0,
            _ => {
                let wishes = self.wishes.swap(0, Ordering::Relaxed);
                wishes & !self.taken.fetch_or(wishes, Ordering::Relaxed)
            }
        };
        Part::ALL.into_iter().filter(move |part| taken & part.bit() != 0)
    }

    /// Whether it is there and of use.
    fn has(&self, part: Part) -> bool {
        match part {
            Part::Index => self.index().is_some(),
            Part::Dictionary => self.dictionary().is_some(),
            Part::Texts => self.joined.get().is_some_and(Option::is_some),
            Part::Uniqueness => self.is_unique() == Some(true),
        }
    }

    pub(super) fn index(&self) -> Option<&Index> {
        self.index.get()?.as_ref()
    }

    pub(super) fn dictionary(&self) -> Option<&Dictionary> {
        self.dictionary.get()?.as_ref()
    }

    /// The texts of a chunk as Arrow has them.
    pub(in crate::engine) fn texts(&self, chunk: usize) -> Option<&Texts> {
        Some(self.joined.get()?.as_ref()?.chunk(chunk))
    }

    /// Whether each value is there once, if that is known.
    pub(in crate::engine) fn is_unique(&self) -> Option<bool> {
        self.is_unique.get().copied()
    }
}

impl Decoded {
    /// A statement would have been faster with this part of a column.
    pub(in crate::engine) fn wish(&self, column: usize, part: Part) {
        if self.can_have(column, part) {
            self.columns[column].parts.wish(part);
        }
    }

    /// What was wished for: each part of a column once.
    pub(in crate::engine) fn take_wishes(&self) -> impl Iterator<Item = (usize, Part)> {
        let columns = self.columns.iter().enumerate();
        columns
            .flat_map(|(number, column)| column.parts.take_wishes().map(move |part| (number, part)))
    }

    /// Makes a part of a column, unless it is there, or there is no room for it. Not for the request
    /// path: it looks at every value.
    pub(in crate::engine) fn make(&self, column: usize, part: Part) {
        if !self.can_have(column, part) {
            return;
        }
        let parts = &self.columns[column].parts;
        parts.taken.fetch_or(part.bit(), Ordering::Relaxed);
        let share = || Share::of(&self.share.budget);
        match part {
            Part::Index => _ = parts.index.get_or_init(|| Index::new(self, column, share())),
            Part::Dictionary => {
                _ = parts.dictionary.get_or_init(|| Dictionary::new(self, column, share()));
            }
            Part::Texts => _ = parts.joined.get_or_init(|| Joined::new(self, column, share())),
            Part::Uniqueness => {
                _ = parts.is_unique.get_or_init(|| is_unique(self, column, share()))
            }
        }
    }

    /// The parts that there are, and of which columns.
    pub(in crate::engine) fn made(&self) -> impl Iterator<Item = (usize, Part)> {
        let columns = self.columns.iter().enumerate();
        columns.flat_map(|(number, column)| {
            let made = Part::ALL.into_iter().filter(|&part| column.parts.has(part));
            made.map(move |part| (number, part))
        })
    }

    /// How many columns have this part.
    pub(in crate::engine) fn count(&self, part: Part) -> usize {
        self.made().filter(|(_, made)| *made == part).count()
    }

    fn can_have(&self, column: usize, part: Part) -> bool {
        let kind = &self.columns[column].kind;
        match part {
            Part::Index => is_indexed(kind) && self.rows >= WORTH_AN_INDEX,
            Part::Dictionary => *kind == Type::Varchar,
            Part::Texts => matches!(kind, Type::Varchar | Type::Json | Type::Blob),
            Part::Uniqueness => has_one_form(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn a_part_is_made_once_for_whoever_wishes_for_it() {
        let mart = decode("SELECT i AS id, 't' || i % 5 AS t, i / 2 AS half FROM range(4096) t(i)");
        for part in Part::ALL {
            (0..3).for_each(|column| (0..2).for_each(|_| mart.wish(column, part)));
        }
        let expected = [
            (0, Part::Index),
            (0, Part::Uniqueness),
            (1, Part::Index),
            (1, Part::Dictionary),
            (1, Part::Texts),
            (1, Part::Uniqueness),
        ];
        assert_eq!(mart.take_wishes().collect::<Vec<_>>(), expected);
        expected.iter().for_each(|&(column, part)| mart.wish(column, part));
        assert!(mart.take_wishes().next().is_none(), "somebody is about to make them");

        assert!(mart.made().next().is_none());
        expected.iter().for_each(|&(column, part)| mart.make(column, part));
        assert!(mart.made().eq(expected[..5].iter().copied()), "the texts are not unique");
        assert_eq!(mart.count(Part::Index), 2);

        let next = decode("SELECT i AS id FROM range(4096) t(i)");
        next.make(0, Part::Index);
        next.wish(0, Part::Index);
        assert!(next.take_wishes().next().is_none(), "it is there");

        let few = decode("SELECT i AS id FROM range(4095) t(i)");
        few.wish(0, Part::Index);
        few.make(0, Part::Index);
        assert!(few.take_wishes().next().is_none() && few.made().next().is_none());
    }

    #[test]
    fn a_column_is_unique_when_each_value_is_there_once_and_none_is_missing() {
        let types = "BIGINT INTEGER USMALLINT UBIGINT DECIMAL(9,2) DECIMAL(30,2) VARCHAR";
        let cast = |value: &str| -> String {
            let casts = types.split(' ').map(|ty| format!("({value})::{ty}"));
            let times = ["TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS"]
                .map(|ty| format!("(TIMESTAMP '2020-01-01' + to_days(({value})::INTEGER))::{ty}"));
            let uuid = format!("md5(({value})::VARCHAR)::UUID");
            casts.chain(times).chain([uuid]).collect::<Vec<_>>().join(", ")
        };
        for (value, is_unique) in
            [("i", true), ("i % 4999", false), ("CASE WHEN i <> 77 THEN i END", false)]
        {
            let mart = decode(&format!("SELECT {} FROM range(5000) t(i)", cast(value)));
            for column in 0..mart.columns().len() {
                mart.make(column, Part::Uniqueness);
                let found = mart.columns()[column].parts.is_unique();
                assert_eq!(found, Some(is_unique), "{value}: {:?}", mart.kind(column));
            }
        }
        // Two that are equal have different bytes.
        let mart = decode("SELECT unnest([0.0, -0.0]::DOUBLE[]) AS x");
        mart.make(0, Part::Uniqueness);
        assert_eq!(mart.columns()[0].parts.is_unique(), None);
        let none = decode("SELECT 1 AS x LIMIT 0");
        none.make(0, Part::Uniqueness);
        assert_eq!(none.columns()[0].parts.is_unique(), Some(true));
    }
}
