//! The footer of a Parquet file: present, whole, and pointing at bytes that are in the file.

use std::io;
use std::panic;

use parquet::file::metadata::ParquetMetaDataReader;

use super::nesting::schema_depth;
use crate::pin::Pin;

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED_MAGIC: &[u8; 4] = b"PARE";
/// A leading magic, a footer length, a trailing magic.
const SMALLEST: u64 = 12;
/// How deeply columns may be nested. A list takes two levels, a struct one.
const DEEPEST_SCHEMA: usize = 200;
/// The key under which dbt writes a build's id into every mart file.
const INVOCATION_KEY: &str = "dbt_invocation_id";

/// What martd needs to know of a footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The dbt build that wrote the file, if dbt did.
    pub invocation_id: Option<String>,
    /// The rows that the file claims to have.
    pub rows: u64,
}

/// Why a footer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// The file does not end in a whole footer: most likely it is still being written.
    #[error("{0}")]
    Incomplete(String),
    /// The footer is whole and says something that cannot be.
    #[error("{0}")]
    Broken(String),
}

/// Whether the file ends as a Parquet file does. A look at eight bytes, which spares copying a large
/// file again and again while it is being written.
///
/// # Errors
/// When the file cannot be read, or does not end so; the reason is the error's text.
pub fn has_tail(file: &std::fs::File) -> io::Result<Result<(), String>> {
    use std::os::unix::fs::FileExt;
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok(Err("is empty (0 bytes)".to_owned()));
    }
    if size < SMALLEST {
        return Ok(Err(format!("has {size} bytes; the smallest Parquet file has {SMALLEST}")));
    }
    let mut tail = [0; 8];
    match file.read_exact_at(&mut tail, size - 8) {
        Ok(()) => Ok(check_tail(tail, size).map(|_| ())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Err("shrank while it was read".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// The length of the footer that these last eight bytes announce.
fn check_tail(tail: [u8; 8], size: u64) -> Result<u64, String> {
    let [l0, l1, l2, l3, magic @ ..] = tail;
    if &magic == ENCRYPTED_MAGIC {
        return Err("has an encrypted footer, which martd cannot read".to_owned());
    }
    if &magic != MAGIC {
        return Err("does not end in a Parquet footer (no PAR1)".to_owned());
    }
    let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
    if length + SMALLEST > size {
        return Err(format!("announces a footer of {length} bytes in a file of {size}"));
    }
    Ok(length)
}

impl Footer {
    /// Parses the footer of a pinned file and checks that what it points at lies in the file.
    ///
    /// # Errors
    /// [`FooterError`] says which of the two it is: not whole yet, or broken.
    pub fn read(pin: &Pin) -> Result<Self, FooterError> {
        let incomplete = |reason: String| FooterError::Incomplete(reason);
        let size = pin.size();
        let mut head = [0; 4];
        let mut tail = [0; 8];
        pin.read_exact_at(&mut head, 0)
            .and_then(|()| pin.read_exact_at(&mut tail, size.saturating_sub(8)))
            .map_err(|error| incomplete(format!("cannot be read: {error}")))?;
        let length = check_tail(tail, size).map_err(incomplete)?;
        if &head != MAGIC {
            return Err(incomplete("does not begin as a Parquet file does (no PAR1)".to_owned()));
        }

        let data_end = size - length - 8;
        let mut bytes = vec![0; length as usize];
        pin.read_exact_at(&mut bytes, data_end)
            .map_err(|error| incomplete(format!("cannot be read: {error}")))?;
        match schema_depth(&bytes) {
            Some(depth) if depth > DEEPEST_SCHEMA => {
                let reason =
                    format!("nests its columns {depth} deep; {DEEPEST_SCHEMA} is the most");
                return Err(FooterError::Broken(reason));
            }
            Some(_) => {}
            None => return Err(incomplete("has a footer that does not parse".to_owned())),
        }
        // The parser is safe Rust, but hostile bytes may make it panic.
        let parsed = panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(&bytes))
            .map_err(|_| incomplete("has a footer that cannot be parsed".to_owned()))?
            .map_err(|error| incomplete(format!("has a footer that does not parse: {error}")))?;

        let file = parsed.file_metadata();
        let broken = |reason: String| Err(FooterError::Broken(reason));
        if file.schema_descr().num_columns() == 0 {
            return broken("has no columns".to_owned());
        }
        let mut rows = 0_i64;
        for (index, group) in parsed.row_groups().iter().enumerate() {
            rows = rows.saturating_add(group.num_rows());
            for column in group.columns() {
                // The crate's own `byte_range` panics on negative numbers.
                let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
                let start = first.min(column.data_page_offset());
                let inside = u64::try_from(start)
                    .ok()
                    .zip(u64::try_from(column.compressed_size()).ok())
                    .and_then(|(start, length)| Some((start, start.checked_add(length)?)))
                    .is_some_and(|(start, end)| start >= 4 && end <= data_end);
                if !inside {
                    return broken(format!(
                        "row group {index} puts column {} outside of the file",
                        column.column_path()
                    ));
                }
            }
        }
        if rows != file.num_rows() {
            return broken(format!(
                "its row groups hold {rows} rows, but it claims {}",
                file.num_rows()
            ));
        }
        let invocation_id = file
            .key_value_metadata()
            .into_iter()
            .flatten()
            .find(|entry| entry.key == INVOCATION_KEY)
            .and_then(|entry| entry.value.clone());
        match u64::try_from(rows) {
            Ok(rows) => Ok(Self { invocation_id, rows }),
            Err(_) => broken(format!("claims {rows} rows")),
        }
    }
}
