//! What martd knows of a decoded column: which rows have a value, and between which bounds each
//! chunk lies.
//!
//! Both say where a value may be, never where it is: DuckDB looks at what is left.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use foldhash::{HashSet, HashSetExt};

use super::{Chunk, Decoded, PLACE_BITS, Share};
use crate::engine::types::Type;
use crate::engine::{Plain, Vector};

/// The rows of each value of a column, by the hashes of the values. NULLs are left out.
#[derive(Debug)]
pub(super) struct Index {
    hasher: RandomState,
    hashes: Vec<u64>,
    /// Where in `rows` those of each hash begin; one more than there are hashes.
    starts: Vec<u32>,
    /// Numbers of rows: hash by hash, those of one from the first to the last.
    rows: Vec<u32>,
    _share: Share,
}

impl Index {
    /// Looks at every value of a column that [can have an index](is_indexed). `None` when there is no
    /// room.
    pub(super) fn new(decoded: &Decoded, column: usize, mut share: Share) -> Option<Self> {
        let kind = &decoded.columns[column].kind;
        if !decoded.has_short_numbers() || !share.grow(decoded.rows * size_of::<u32>() as u64) {
            return None;
        }
        let hasher = RandomState::default();
        let mut hashed: Vec<(u64, u32)> = Vec::with_capacity(decoded.rows as usize);
        for (number, chunk) in decoded.steps().enumerate() {
            let values = chunk.column(column);
            for row in (0..chunk.rows()).filter(|&row| !values.is_null(row)) {
                let value = bytes(kind, &values, row);
                hashed.push((hasher.hash_one(value), (number << PLACE_BITS | row) as u32));
            }
        }
        hashed.sort_unstable();
        let (mut hashes, mut starts, mut end) = (Vec::new(), vec![0], 0);
        for same in hashed.chunk_by(|left, right| left.0 == right.0) {
            hashes.push(same[0].0);
            end += same.len() as u32;
            starts.push(end);
        }
        let per_value = size_of::<u64>() + size_of::<u32>();
        let rows = hashed.iter().map(|(_, row)| *row).collect();
        share.grow((hashes.len() * per_value) as u64).then_some(Self {
            hasher,
            hashes,
            starts,
            rows,
            _share: share,
        })
    }

    /// Where in [`rows`](Self::rows) those that may have this value are; nothing when none has.
    pub(super) fn find(&self, value: &[u8]) -> std::ops::Range<usize> {
        match self.hashes.binary_search(&self.hasher.hash_one(value)) {
            Ok(place) => self.starts[place] as usize..self.starts[place + 1] as usize,
            Err(_) => 0..0,
        }
    }

    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }
}

/// Whether each value of a column of a type [that tells](has_one_form) is there once, and none is NULL.
/// Not when two have the same hash, which says little, nor when there is no room to find out: the
/// answer costs time alone.
pub(super) fn is_unique(decoded: &Decoded, column: usize, mut share: Share) -> bool {
    let rows = decoded.rows as usize;
    // At most half of a table's places are empty, and each takes a byte more.
    if !share.grow((2 * rows * (size_of::<u64>() + 1)) as u64) {
        return false;
    }
    let kind = &decoded.columns[column].kind;
    let hasher = RandomState::default();
    let mut seen = HashSet::with_capacity(rows);
    decoded.steps().all(|chunk| {
        let values = chunk.column(column);
        (0..chunk.rows()).all(|row| {
            !values.is_null(row) && seen.insert(hasher.hash_one(bytes(kind, &values, row)))
        })
    })
}

/// The bytes of a value that is not NULL.
pub(super) fn bytes<'d>(kind: &Type, values: &Vector<'d>, row: usize) -> &'d [u8] {
    match kind {
        Type::Varchar => values.bytes(row),
        _ => {
            let width = kind.width().expect("is not nested");
            values.plain_bytes(width, row..row + 1)
        }
    }
}

/// Types of which two values are equal when their bytes are, and of which statements look for one.
pub(super) fn is_indexed(kind: &Type) -> bool {
    matches!(
        kind,
        Type::Varchar
            | Type::Uuid
            | Type::Date
            | Type::TinyInt
            | Type::SmallInt
            | Type::Integer
            | Type::BigInt
            | Type::UTinyInt
            | Type::USmallInt
            | Type::UInteger
    )
}

/// Types of which two values are equal when their bytes are, and that DuckDB orders as these say: those
/// of a text from the first on, those of all others as one number.
pub(super) fn has_one_form(kind: &Type) -> bool {
    is_indexed(kind)
        || matches!(
            kind,
            Type::UBigInt
                | Type::Decimal { .. }
                | Type::Timestamp
                | Type::TimestampNs
                | Type::TimestampTz
        )
}

/// The least and the greatest value of each chunk; `None` for one with NULLs alone.
pub(super) type Bounds = Vec<Option<(i64, i64)>>;

/// The bounds of a column that DuckDB stores as an integer of at most 64 bits; `None` of another.
pub(super) fn bounds(decoded: &Decoded, column: usize) -> Option<Bounds> {
    fn each<T: Plain + Into<i64>>(chunks: &[Chunk], column: usize) -> Bounds {
        let of = |chunk: &Chunk| {
            let values = chunk.column(column);
            let present = values.runs(0..chunk.rows()).filter(|(null, _)| !null);
            let bounds = present.map(|(_, rows)| {
                let values = values.values::<T>()[rows].iter().map(|&value| value.into());
                values.fold((i64::MAX, i64::MIN), |(least, greatest), value: i64| {
                    (least.min(value), greatest.max(value))
                })
            });
            bounds.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
        };
        chunks.iter().map(of).collect()
    }
    let chunks = &decoded.chunks;
    Some(match decoded.columns[column].kind {
        Type::TinyInt => each::<i8>(chunks, column),
        Type::SmallInt => each::<i16>(chunks, column),
        Type::Integer | Type::Date => each::<i32>(chunks, column),
        Type::BigInt | Type::Timestamp => each::<i64>(chunks, column),
        Type::UTinyInt => each::<u8>(chunks, column),
        Type::USmallInt => each::<u16>(chunks, column),
        Type::UInteger => each::<u32>(chunks, column),
        _ => return None,
    })
}
