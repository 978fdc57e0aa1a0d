//! The texts of a decoded column, one after the other, with the places where they begin: as Arrow has
//! them.
//!
//! DuckDB has 16 bytes for each text, and a place elsewhere where those are too few. To write Arrow's
//! form takes several looks at each text, a quarter of the time of an answer with many. A column that
//! Arrow answers list whole chunks of has its texts in that form, too, and they are copied at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Chunk, Share};
use crate::engine::Vector;

/// A column's texts in that form, if somebody wants them.
#[derive(Debug, Default)]
pub(in crate::engine) struct Joinable {
    /// Empty inside once it is known that there is no room.
    made: OnceLock<Option<Joined>>,
    is_wanted: AtomicBool,
}

#[derive(Debug)]
struct Joined {
    chunks: Vec<Texts>,
    _share: Share,
}

/// The texts of a chunk. A NULL is one of no bytes.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Where each begins; one more than there are texts.
    pub(crate) offsets: Vec<i32>,
    /// All of them.
    pub(crate) bytes: Vec<u8>,
}

impl Joinable {
    /// Those of a chunk.
    pub(in crate::engine) fn chunk(&self, number: usize) -> Option<&Texts> {
        Some(&self.made.get()?.as_ref()?.chunks[number])
    }

    /// They would have been used.
    pub(in crate::engine) fn note_wish(&self) {
        if self.made.get().is_none() {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether somebody has wished for them since the last time.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed) && self.is_wanted.swap(false, Ordering::Relaxed)
    }

    /// Whether they are there.
    pub(super) fn is_made(&self) -> bool {
        self.made.get().is_some_and(Option::is_some)
    }

    /// Makes them of a column of texts, if there is room.
    pub(super) fn make(&self, chunks: &[Chunk], column: usize, share: Share) {
        self.made.get_or_init(|| Joined::new(chunks, column, share));
    }
}

impl Joined {
    fn new(chunks: &[Chunk], column: usize, mut share: Share) -> Option<Self> {
        let texts = chunks.iter().map(|chunk| {
            let vector = chunk.column(column);
            let bytes = vector.text_bytes();
            let offsets_bytes = (chunk.rows() + 1) * size_of::<i32>();
            i32::try_from(bytes).ok()?;
            share.grow((bytes + offsets_bytes) as u64).then(|| Texts::of(&vector, bytes))
        });
        let chunks = texts.collect::<Option<_>>()?;
        Some(Self { chunks, _share: share })
    }
}

impl Texts {
    /// Those of a vector, in which they have so many bytes.
    fn of(vector: &Vector<'_>, total: usize) -> Self {
        let mut offsets = Vec::with_capacity(vector.len() + 1);
        let mut bytes = Vec::with_capacity(total);
        offsets.push(0);
        for row in 0..vector.len() {
            if !vector.is_null(row) {
                bytes.extend_from_slice(vector.bytes(row));
            }
            offsets.push(bytes.len() as i32);
        }
        Self { offsets, bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Decoded;
    use super::super::tests::decode;

    fn texts(decoded: &Arc<Decoded>, numbers: &[i64]) -> Option<Vec<String>> {
        let chunk = decoded.rows(&[0], numbers);
        let column = chunk.column(0);
        let joined = column.joined(true)?;
        assert_eq!(column.text_bytes(), joined.offsets[column.len()] as usize);
        let text = |row: usize| {
            let [start, end] = [row, row + 1].map(|place| joined.offsets[place] as usize);
            String::from_utf8(joined.bytes[start..end].to_vec()).expect("text")
        };
        Some((0..column.len()).map(text).collect())
    }

    #[test]
    fn rows_that_follow_each_other_from_a_chunks_first_have_their_texts_joined() {
        let decoded = Arc::new(decode(
            "SELECT CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'text number ' || i END AS t,
                i AS id FROM range(5000) t(i)",
        ));
        let expected = |from: i64, to: i64| -> Vec<String> {
            (from..to)
                .map(|i| if i % 4 < 2 { String::new() } else { format!("text number {i}") })
                .collect()
        };
        let numbers = |from, to| (from..to).collect::<Vec<i64>>();
        assert!(decoded.wanted_texts().next().is_none());
        assert_eq!(texts(&decoded, &numbers(0, 2048)), None);
        assert_eq!(decoded.wanted_texts().collect::<Vec<_>>(), [0]);
        assert!(decoded.wanted_texts().next().is_none(), "it is named once");

        (0..2).for_each(|column| decoded.join_texts(column));
        assert_eq!(decoded.with_texts().collect::<Vec<_>>(), ["t"]);
        for (from, to) in [(0, 2048), (2048, 4096), (4096, 5000), (2048, 2100), (0, 1)] {
            assert_eq!(texts(&decoded, &numbers(from, to)), Some(expected(from, to)));
        }
        assert_eq!(texts(&decoded, &numbers(1, 2048)), None);
        assert_eq!(texts(&decoded, &[0, 2]), None);
        assert!(decoded.wanted_texts().next().is_none());
    }
}
