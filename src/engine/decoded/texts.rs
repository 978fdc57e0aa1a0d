//! The texts of a decoded column, one after the other, with the places where they begin: as Arrow has
//! them.
//!
//! DuckDB has 16 bytes for each text, and a place elsewhere where those are too few. To write Arrow's
//! form takes several looks at each text, a quarter of the time of an answer with many. A column that
//! Arrow answers list whole chunks of has its texts in that form, too, and they are copied at once.

use super::{Decoded, Share};
use crate::engine::Vector;
use crate::engine::vector::SHORT_BYTES;

/// A column's texts in that form.
#[derive(Debug)]
pub(super) struct Joined {
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

impl Joined {
    /// Copies every text of a column that Arrow has as they are. `None` when there is no room.
    pub(super) fn new(decoded: &Decoded, column: usize, mut share: Share) -> Option<Self> {
        let texts = decoded.steps().map(|chunk| {
            let vector = chunk.column(column);
            let bytes = vector.text_bytes();
            let more = SHORT_BYTES + (chunk.rows() + 1) * size_of::<i32>();
            i32::try_from(bytes).ok()?;
            share.grow((bytes + more) as u64).then(|| Texts::of(&vector, bytes))
        });
        let chunks = texts.collect::<Option<_>>()?;
        Some(Self { chunks, _share: share })
    }

    /// Those of a chunk.
    pub(super) fn chunk(&self, number: usize) -> &Texts {
        &self.chunks[number]
    }
}

impl Texts {
    /// Those of a vector, in which they have so many bytes.
    fn of(vector: &Vector<'_>, total: usize) -> Self {
        let mut offsets = Vec::with_capacity(vector.len() + 1);
        let mut bytes = Vec::with_capacity(total + SHORT_BYTES);
        let mut end = 0;
        offsets.push(end);
        for (null, rows) in vector.runs(0..vector.len()) {
            if null {
                offsets.extend(rows.map(|_| end));
                continue;
            }
            vector.append_texts(rows.clone(), &mut bytes);
            offsets.extend(vector.lengths(rows).map(|length| {
                end += length as i32;
                end
            }));
        }
        Self { offsets, bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::decode;
    use super::super::{Decoded, Part};

    fn texts(decoded: &Arc<Decoded>, numbers: &[i64]) -> Option<Vec<String>> {
        let chunk = decoded.rows(&[0], numbers);
        let column = chunk.column(0);
        let joined = column.joined()?;
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
        assert_eq!(texts(&decoded, &numbers(0, 2048)), None);
        assert!(decoded.take_wishes().next().is_none());
        decoded.rows(&[0], &numbers(0, 2048)).column(0).wish_joined();
        assert!(decoded.take_wishes().eq([(0, Part::Texts)]));

        (0..2).for_each(|column| decoded.make(column, Part::Texts));
        assert!(decoded.made().eq([(0, Part::Texts)]));
        for (from, to) in [(0, 2048), (2048, 4096), (4096, 5000), (2048, 2100), (0, 1)] {
            assert_eq!(texts(&decoded, &numbers(from, to)), Some(expected(from, to)));
        }
        assert_eq!(texts(&decoded, &numbers(1, 2048)), None);
        assert_eq!(texts(&decoded, &[0, 2]), None);
        decoded.rows(&[0], &numbers(0, 2048)).column(0).wish_joined();
        assert!(decoded.take_wishes().next().is_none(), "they are there");
    }
}
