//! What martd reads of a Parquet footer by itself: how deeply its schema is nested, its rows, its
//! sizes, its key-value metadata, decimals with more digits than DuckDB has, and whether it contradicts
//! itself.
//!
//! A walk over Thrift's compact encoding without recursion over what the file says, and as lenient
//! as DuckDB and pyarrow: a field of another type than the format's is passed over, a text need not
//! be UTF-8, an enumeration may have values that nobody has heard of. A stricter parser rejected files
//! that both read.

/// Structs and lists inside each other, other than the schema itself. The format needs six.
const MOST_SKIPPED: usize = 64;

/// The fields of `FileMetaData` that matter.
mod file {
    pub(super) const SCHEMA: i64 = 2;
    pub(super) const ROWS: i64 = 3;
    pub(super) const ROW_GROUPS: i64 = 4;
    pub(super) const KEY_VALUES: i64 = 5;
}
/// Those of `SchemaElement`. The last says how many of the elements after it are its children.
mod element {
    pub(super) const TYPE: i64 = 1;
    pub(super) const NAME: i64 = 4;
    pub(super) const NUM_CHILDREN: i64 = 5;
    pub(super) const CONVERTED_TYPE: i64 = 6;
    pub(super) const PRECISION: i64 = 8;
    pub(super) const LOGICAL_TYPE: i64 = 10;
}
/// `ConvertedType` and `LogicalType` have the same number for a decimal, whose second field is its precision.
const DECIMAL: i64 = 5;
const DECIMAL_PRECISION: i64 = 2;
/// Those of `RowGroup`. The second is the bytes of its values, encoded and not compressed.
mod group {
    pub(super) const COLUMNS: i64 = 1;
    pub(super) const TOTAL_BYTES: i64 = 2;
}
/// The one of `ColumnChunk`.
const META_DATA: i64 = 3;
/// Those of `ColumnMetaData`.
mod column {
    pub(super) const TYPE: i64 = 1;
    pub(super) const PATH: i64 = 3;
}

/// What a footer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Walked<'b> {
    /// The levels of the schema; 0 when all columns stand side by side without a root.
    pub(super) depth: usize,
    /// `FileMetaData.num_rows`.
    pub(super) rows: i64,
    /// The sum of `RowGroup.total_byte_size`; a negative one counts nothing.
    pub(super) uncompressed: u64,
    /// Keys and values, as they are.
    pub(super) key_values: Vec<(&'b [u8], &'b [u8])>,
    /// How many columns are named otherwise in the schema than beside their values, or have another
    /// type there. DuckDB goes by the schema alone; when the two differ, one of them is damaged.
    pub(super) contradictions: usize,
    /// The column that has the most digits of all decimals, and how many.
    pub(super) widest_decimal: (&'b [u8], i64),
}

/// A column without columns in it: its name, and the number of its type if it has one.
type Leaf<'b> = (&'b [u8], Option<i64>);

/// The depth of a schema, its leaves, and its widest decimal.
type Schema<'b> = (usize, Vec<Leaf<'b>>, (&'b [u8], i64));

/// Walks over the bytes of a footer; `None` when they are not one.
pub(super) fn walk(footer: &[u8]) -> Option<Walked<'_>> {
    let mut thrift = Thrift(footer);
    let mut walked = Walked::default();
    let (mut field, mut leaves) = (0, None);
    while let Some(ty) = thrift.field(&mut field)? {
        match (field, ty) {
            (file::SCHEMA, LIST) => {
                let (depth, found, widest) = thrift.schema()?;
                (walked.depth, leaves) = (walked.depth.max(depth), Some(found));
                walked.widest_decimal = widest;
            }
            (file::ROWS, I16 | I32 | I64) => walked.rows = unzigzag(thrift.varint()?),
            (file::ROW_GROUPS, LIST) => thrift.structs(|thrift| {
                let leaves = leaves.as_deref().unwrap_or_default();
                let (bytes, contradictions) = thrift.row_group(leaves)?;
                walked.uncompressed = walked.uncompressed.saturating_add(bytes);
                walked.contradictions = walked.contradictions.saturating_add(contradictions);
                Some(())
            })?,
            (file::KEY_VALUES, LIST) => thrift.structs(|thrift| {
                walked.key_values.push(thrift.key_value()?);
                Some(())
            })?,
            _ => thrift.skip(ty, MOST_SKIPPED)?,
        }
    }
    leaves.map(|_| walked)
}

const BOOLEANS: [u8; 2] = [1, 2];
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// What is left to read. Every method is `None` at the end of the bytes.
struct Thrift<'b>(&'b [u8]);

impl<'b> Thrift<'b> {
    fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn binary(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.bytes(length)
    }

    /// The type of the next field of a struct, whose number is counted on in `field`; `Some(None)`
    /// at the struct's end.
    fn field(&mut self, field: &mut i64) -> Option<Option<u8>> {
        let header = self.byte()?;
        if header & 0x0f == 0 {
            return Some(None);
        }
        *field = match header >> 4 {
            0 => unzigzag(self.varint()?),
            delta => field.checked_add(i64::from(delta))?,
        };
        Some(Some(header & 0x0f))
    }

    /// The size of a list, and the type of its elements.
    fn list(&mut self) -> Option<(u64, u8)> {
        let header = self.byte()?;
        let size = match header >> 4 {
            15 => self.varint()?,
            size => u64::from(size),
        };
        Some((size, header & 0x0f))
    }

    /// Reads a list of structs by `each`. One of anything else is passed over.
    fn structs(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let (size, ty) = self.list()?;
        for _ in 0..size {
            if ty == STRUCT { each(self)? } else { self.skip_element(ty, MOST_SKIPPED)? }
        }
        Some(())
    }

    /// A schema, which is a list in depth-first order.
    fn schema(&mut self) -> Option<Schema<'b>> {
        let (mut deepest, mut leaves, mut widest) = (0, Vec::new(), (&[][..], 0));
        // For each group that is open: how many of its children are still to come.
        let mut open: Vec<i64> = Vec::new();
        self.structs(|thrift| {
            let (leaf, children, digits) = thrift.schema_element()?;
            if digits > widest.1 {
                widest = (leaf.0, digits);
            }
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            if children > 0 {
                open.push(children);
                deepest = deepest.max(open.len());
            } else {
                leaves.push(leaf);
            }
            Some(())
        })?;
        Some((deepest, leaves, widest))
    }

    /// A `SchemaElement`, how many children it has, and how many digits if it is a decimal.
    fn schema_element(&mut self) -> Option<(Leaf<'b>, i64, i64)> {
        let (mut field, mut name, mut kind, mut children) = (0, &[][..], None, 0);
        let (mut converted, mut precision, mut digits) = (None, 0, 0);
        while let Some(ty) = self.field(&mut field)? {
            match (field, ty) {
                (element::TYPE, I16 | I32 | I64) => kind = Some(unzigzag(self.varint()?)),
                (element::NAME, BINARY) => name = self.binary()?,
                (element::NUM_CHILDREN, I16 | I32 | I64) => children = unzigzag(self.varint()?),
                (element::CONVERTED_TYPE, I16 | I32 | I64) => {
                    converted = Some(unzigzag(self.varint()?));
                }
                (element::PRECISION, I16 | I32 | I64) => precision = unzigzag(self.varint()?),
                (element::LOGICAL_TYPE, STRUCT) => digits = self.logical_decimal()?,
                _ => self.skip(ty, MOST_SKIPPED)?,
            }
        }
        if converted == Some(DECIMAL) {
            digits = digits.max(precision);
        }
        Some(((name, kind), children, digits))
    }

    /// The digits of a `LogicalType` that is a decimal; 0 of any other.
    fn logical_decimal(&mut self) -> Option<i64> {
        let (mut field, mut digits) = (0, 0);
        while let Some(ty) = self.field(&mut field)? {
            if (field, ty) != (DECIMAL, STRUCT) {
                self.skip(ty, MOST_SKIPPED)?;
                continue;
            }
            let mut field = 0;
            while let Some(ty) = self.field(&mut field)? {
                match (field, ty) {
                    (DECIMAL_PRECISION, I16 | I32 | I64) => digits = unzigzag(self.varint()?),
                    _ => self.skip(ty, MOST_SKIPPED)?,
                }
            }
        }
        Some(digits)
    }

    /// The bytes of a row group's values, and how many of its columns are not those of the schema.
    fn row_group(&mut self, leaves: &[Leaf<'b>]) -> Option<(u64, usize)> {
        let (mut field, mut bytes, mut contradictions) = (0, 0, 0);
        while let Some(ty) = self.field(&mut field)? {
            match (field, ty) {
                (group::COLUMNS, LIST) => {
                    let mut left = leaves.iter();
                    self.structs(|thrift| {
                        let found = thrift.column_chunk()?;
                        let differs = |leaf: &Leaf<'_>| found.is_some_and(|found| found != *leaf);
                        contradictions += usize::from(left.next().is_some_and(differs));
                        Some(())
                    })?;
                }
                (group::TOTAL_BYTES, I16 | I32 | I64) => {
                    bytes = u64::try_from(unzigzag(self.varint()?)).unwrap_or(0);
                }
                _ => self.skip(ty, MOST_SKIPPED)?,
            }
        }
        Some((bytes, contradictions))
    }

    /// What a `ColumnChunk` says of its column, if it does.
    fn column_chunk(&mut self) -> Option<Option<Leaf<'b>>> {
        let (mut field, mut found) = (0, None);
        while let Some(ty) = self.field(&mut field)? {
            match (field, ty) {
                (META_DATA, STRUCT) => found = self.column()?,
                _ => self.skip(ty, MOST_SKIPPED)?,
            }
        }
        Some(found)
    }

    /// The last name and the type in a `ColumnMetaData`.
    fn column(&mut self) -> Option<Option<Leaf<'b>>> {
        let (mut field, mut name, mut kind) = (0, None, None);
        while let Some(ty) = self.field(&mut field)? {
            match (field, ty) {
                (column::TYPE, I16 | I32 | I64) => kind = Some(unzigzag(self.varint()?)),
                (column::PATH, LIST) => {
                    let (size, ty) = self.list()?;
                    for _ in 0..size {
                        match ty {
                            BINARY => name = Some(self.binary()?),
                            _ => self.skip_element(ty, MOST_SKIPPED)?,
                        }
                    }
                }
                _ => self.skip(ty, MOST_SKIPPED)?,
            }
        }
        Some(name.map(|name| (name, kind)))
    }

    /// A `KeyValue`. One without a value has an empty one.
    fn key_value(&mut self) -> Option<(&'b [u8], &'b [u8])> {
        let (mut field, mut key, mut value) = (0, &[][..], &[][..]);
        while let Some(ty) = self.field(&mut field)? {
            match (field, ty) {
                (1, BINARY) => key = self.binary()?,
                (2, BINARY) => value = self.binary()?,
                _ => self.skip(ty, MOST_SKIPPED)?,
            }
        }
        Some((key, value))
    }

    fn skip(&mut self, ty: u8, levels: usize) -> Option<()> {
        let levels = levels.checked_sub(1)?;
        match ty {
            _ if BOOLEANS.contains(&ty) => {} // the value is in the type
            BYTE => drop(self.byte()?),
            I16 | I32 | I64 => drop(self.varint()?),
            DOUBLE => drop(self.bytes(8)?),
            UUID => drop(self.bytes(16)?),
            BINARY => drop(self.binary()?),
            LIST | SET => {
                let (size, ty) = self.list()?;
                for _ in 0..size {
                    self.skip_element(ty, levels)?;
                }
            }
            MAP => {
                let size = self.varint()?;
                let types = if size > 0 { self.byte()? } else { 0 };
                for _ in 0..size {
                    self.skip_element(types >> 4, levels)?;
                    self.skip_element(types & 0x0f, levels)?;
                }
            }
            STRUCT => {
                let mut field = 0;
                while let Some(ty) = self.field(&mut field)? {
                    self.skip(ty, levels)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// In a list, unlike in a struct, a boolean takes a byte.
    fn skip_element(&mut self, ty: u8, levels: usize) -> Option<()> {
        let ty = if BOOLEANS.contains(&ty) { BYTE } else { ty };
        self.skip(ty, levels)
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The footer of a schema whose elements have these numbers of children (63 at most).
    fn footer(children: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, (children.len() as u8) << 4 | STRUCT];
        for count in children {
            bytes.extend([0x48, 0x01, b'g', 0x15, count << 1, 0x00]);
        }
        bytes.push(0x00);
        bytes
    }

    fn depth(footer: &[u8]) -> Option<usize> {
        walk(footer).map(|walked| walked.depth)
    }

    #[test]
    fn the_depth_is_that_of_the_deepest_group() {
        for (children, deepest) in [
            (vec![0], 0),
            (vec![2, 0, 0], 1),
            (vec![3, 0, 1, 0, 0], 2),
            (vec![2, 1, 1, 0, 1, 0], 3),
            (vec![1, 1, 1, 1, 0], 4),
        ] {
            assert_eq!(depth(&footer(&children)), Some(deepest), "{children:?}");
        }
    }

    #[test]
    fn what_is_no_footer_does_not_parse() {
        let whole = footer(&[1, 1, 0]);
        for end in 0..whole.len() {
            assert_eq!(walk(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(walk(&[0x19; 1_000_000]), None, "lists in lists without an end");
        assert_eq!(walk(&[0x15, 0x02, 0x00]), None, "no schema");
        let huge = [0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(walk(&huge), None, "more elements than there are bytes");
    }

    #[test]
    fn a_field_of_another_type_is_passed_over() {
        let mut bytes = footer(&[1, 0]);
        bytes.pop();
        bytes.extend([0x18, 0x01, 0xff]); // num_rows as a text that is not UTF-8
        bytes.extend([0x19, 0x14, 0x02]); // row groups as a list of I16
        bytes.extend([0x19, 0x1c, 0x18, 0x01, 0xff, 0x18, 0x01, b'v', 0x00, 0x00]);
        let walked = walk(&bytes).expect("a footer");
        assert_eq!((walked.rows, walked.uncompressed), (0, 0));
        assert_eq!(walked.key_values, [(&[0xff][..], &b"v"[..])]);
    }
}
