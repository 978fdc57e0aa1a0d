//! How deeply the schema of a footer is nested, found without recursion.
//!
//! The parquet crate builds the schema by recursion, and a footer of a few kilobytes can nest it so
//! deeply that the stack overflows, which no `catch_unwind` stops. So this is asked first. It reads
//! Thrift's compact encoding, as much of it as it takes to find `num_children` of each element. The
//! crate goes by the numbers of fields and not by their types, so a known field of another type than
//! the format's, which the two would read differently, is refused.

/// Structs and lists inside each other, other than the schema itself. The format needs six.
const MOST_SKIPPED: usize = 32;

/// The types of the fields of `FileMetaData` and `SchemaElement`, from the first on.
const FILE_FIELDS: [u8; 9] = [I32, LIST, I64, LIST, LIST, BINARY, LIST, STRUCT, BINARY];
const ELEMENT_FIELDS: [u8; 10] = [I32, I32, I32, BINARY, I32, I32, I32, I32, I32, STRUCT];
/// The field of `FileMetaData` that is the schema.
const SCHEMA: i64 = 2;
/// The field of `SchemaElement` that says how many of the elements after it are its children.
const NUM_CHILDREN: i64 = 5;

/// The depth of the schema in a Parquet footer; `None` when the footer does not parse.
pub(super) fn schema_depth(footer: &[u8]) -> Option<usize> {
    let mut thrift = Thrift(footer);
    let (mut field, mut depth) = (0, None);
    while let Some(ty) = thrift.field_of(&FILE_FIELDS, &mut field)? {
        if field == SCHEMA {
            depth = depth.max(Some(depth_of_list(&mut thrift)?));
        } else {
            thrift.skip(ty, MOST_SKIPPED)?;
        }
    }
    depth
}

/// The schema is a list in depth-first order.
fn depth_of_list(thrift: &mut Thrift<'_>) -> Option<usize> {
    let (elements, ty) = thrift.list()?;
    if ty != STRUCT {
        return None;
    }
    let mut deepest = 0;
    // For each group that is open: how many of its children are still to come.
    let mut open: Vec<u64> = Vec::new();
    for _ in 0..elements {
        let children = thrift.schema_element()?;
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if children > 0 {
            open.push(children);
            deepest = deepest.max(open.len());
        }
    }
    Some(deepest)
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

/// What is left to read. Every method is `None` at the end of the bytes.
struct Thrift<'b>(&'b [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
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

    /// The type of the next field of a struct, whose number is counted on in `field`; `Some(None)`
    /// at the struct's end.
    fn field(&mut self, field: &mut i64) -> Option<Option<u8>> {
        let header = self.byte()?;
        if header == 0 {
            return Some(None);
        }
        *field = match header >> 4 {
            0 => unzigzag(self.varint()?),
            delta => field.checked_add(i64::from(delta))?,
        };
        Some(Some(header & 0x0f))
    }

    /// The same, of a struct whose fields have these types. It may have more.
    fn field_of(&mut self, types: &[u8], field: &mut i64) -> Option<Option<u8>> {
        let Some(ty) = self.field(field)? else { return Some(None) };
        let place = usize::try_from(*field).ok()?.checked_sub(1)?;
        (types.get(place).is_none_or(|known| *known == ty)).then_some(Some(ty))
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

    /// How many children a schema element has.
    fn schema_element(&mut self) -> Option<u64> {
        let (mut field, mut children) = (0, 0);
        while let Some(ty) = self.field_of(&ELEMENT_FIELDS, &mut field)? {
            if field == NUM_CHILDREN {
                children = u64::try_from(unzigzag(self.varint()?)).ok()?;
            } else {
                self.skip(ty, MOST_SKIPPED)?;
            }
        }
        Some(children)
    }

    fn skip(&mut self, ty: u8, levels: usize) -> Option<()> {
        let levels = levels.checked_sub(1)?;
        match ty {
            _ if BOOLEANS.contains(&ty) => {} // the value is in the type
            BYTE => drop(self.byte()?),
            I16 | I32 | I64 => drop(self.varint()?),
            DOUBLE => self.0 = self.0.get(8..)?,
            BINARY => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.0 = self.0.get(length..)?;
            }
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

    #[test]
    fn the_depth_is_that_of_the_deepest_group() {
        for (children, depth) in [
            (vec![0], 0),
            (vec![2, 0, 0], 1),
            (vec![3, 0, 1, 0, 0], 2),
            (vec![2, 1, 1, 0, 1, 0], 3),
            (vec![1, 1, 1, 1, 0], 4),
        ] {
            assert_eq!(schema_depth(&footer(&children)), Some(depth), "{children:?}");
        }
    }

    #[test]
    fn what_is_no_footer_has_no_depth() {
        let whole = footer(&[1, 1, 0]);
        for end in 0..whole.len() {
            assert_eq!(schema_depth(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(schema_depth(&[0x19; 1_000_000]), None, "lists in lists without an end");
        let mistyped = [0x15, 0x02, 0x1c, 0x1c];
        assert_eq!(schema_depth(&mistyped), None, "the schema as a struct");
        let huge = [0x15, 0x02, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(schema_depth(&huge), None, "more elements than there are bytes");
    }
}
