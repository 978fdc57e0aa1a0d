//! The footer of a Parquet file: present, whole, and not nested too deeply.
//!
//! Read in the front and in safe Rust, for what has to be known before a builder is asked: whether the
//! file is still being written, who wrote it, and how much room its table will take. Whether it is any
//! good is the builder's to say: a parser here that is stricter than DuckDB's rejects files that are.

use std::io;

use super::nesting::walk;
use crate::pin::Pin;

const MAGIC: &[u8; 4] = b"PAR1";
const ENCRYPTED_MAGIC: &[u8; 4] = b"PARE";
/// A leading magic, a footer length, a trailing magic.
const SMALLEST: u64 = 12;
/// How deeply columns may be nested. A list takes two levels, a struct one.
const DEEPEST_SCHEMA: usize = 200;
/// DuckDB has no decimal of more digits: it reads one as DOUBLE, and most of its values wrongly.
const MOST_DIGITS: i64 = 38;
/// The key under which dbt writes a build's id into every mart file.
const INVOCATION_KEY: &[u8] = b"dbt_invocation_id";

/// What martd needs to know of a footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The dbt build that wrote the file, if dbt did.
    pub invocation_id: Option<String>,
    /// The rows that the file claims to have.
    pub rows: u64,
    /// The bytes of all values, encoded and not compressed, as the file claims.
    pub uncompressed: u64,
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
    /// Reads the footer of a pinned file.
    ///
    /// # Errors
    /// [`FooterError`] says which of the two it is: not whole yet, or broken.
    pub fn read(pin: &Pin) -> Result<Self, FooterError> {
        let incomplete = FooterError::Incomplete;
        let size = pin.size();
        let (mut head, mut tail) = ([0; 4], [0; 8]);
        let unreadable = |error| incomplete(format!("cannot be read: {error}"));
        pin.read_exact_at(&mut head, 0).map_err(unreadable)?;
        pin.read_exact_at(&mut tail, size.saturating_sub(8)).map_err(unreadable)?;
        let length = check_tail(tail, size).map_err(incomplete)?;
        if &head != MAGIC {
            return Err(incomplete("does not begin as a Parquet file does (no PAR1)".to_owned()));
        }
        let mut bytes = vec![0; length as usize];
        pin.read_exact_at(&mut bytes, size - length - 8).map_err(unreadable)?;
        let Some(walked) = walk(&bytes) else {
            return Err(incomplete("has a footer that does not parse".to_owned()));
        };
        if walked.depth > DEEPEST_SCHEMA {
            let depth = walked.depth;
            let reason = format!("nests its columns {depth} deep; {DEEPEST_SCHEMA} is the most");
            return Err(FooterError::Broken(reason));
        }
        if walked.contradictions > 0 {
            let count = walked.contradictions;
            let reason = format!("names {count} columns otherwise in its schema than beside them");
            return Err(FooterError::Broken(reason));
        }
        let (column, digits) = walked.widest_decimal;
        if digits > MOST_DIGITS {
            let column = String::from_utf8_lossy(column);
            let reason = format!(
                "has a DECIMAL of {digits} digits in column {column}, which DuckDB reads wrongly; \
                 write at most {MOST_DIGITS} digits, a DOUBLE or a text"
            );
            return Err(FooterError::Broken(reason));
        }
        let rows = u64::try_from(walked.rows)
            .map_err(|_| FooterError::Broken(format!("claims {} rows", walked.rows)))?;
        let invocation_id = walked
            .key_values
            .iter()
            .find(|(key, _)| *key == INVOCATION_KEY)
            .and_then(|(_, value)| String::from_utf8(value.to_vec()).ok());
        Ok(Self { invocation_id, rows, uncompressed: walked.uncompressed })
    }
}
