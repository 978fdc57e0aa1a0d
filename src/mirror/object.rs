//! An object of the store as it is listed, and what it is to martd.

use serde::{Deserialize, Serialize};

use crate::ledger::{FIRST_EDITION, RECORDS, is_id};
use crate::scan::{EXTENSION, SUCCESS, hidden};

/// Of a file, in bytes.
const LONGEST_NAME: usize = 255;

/// An object below the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its path below the prefix, which is that of its file in the mart directory.
    pub path: String,
    /// What tells its content from others.
    pub version: ObjectVersion,
}

/// What a listing says of an object's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectVersion {
    /// The size in bytes.
    pub size: u64,
    /// The store's own mark of the content.
    pub etag: Option<String>,
    /// The version's id, where the listing has it.
    pub id: Option<String>,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: i64,
}

impl ObjectVersion {
    /// Whether both are the same bytes, as far as the store tells.
    pub fn is_same_content_as(&self, other: &Self) -> bool {
        let marks = (&self.etag, &self.id, self.size) == (&other.etag, &other.id, other.size);
        marks && (self.etag.is_some() || self.modified_ms == other.modified_ms)
    }
}

/// What an object is to martd. The order is that in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A mart, or a part of one.
    Data,
    /// A record of the ledger.
    Record,
    /// Says that a directory of parts is complete.
    Success,
}

/// Why no file can have an object's path, if none can.
pub fn unusable(path: &str) -> Option<&'static str> {
    // A store replaces what its listing cannot hold.
    let cannot_be_listed = |sign: char| sign.is_control() || sign == char::REPLACEMENT_CHARACTER;
    path.split('/').find_map(|name| match name {
        "" => Some("a name in it is empty"),
        "." | ".." => Some("it has a dot for a name"),
        _ if name.len() > LONGEST_NAME => Some("a name in it is longer than 255 bytes"),
        _ if name.contains(cannot_be_listed) => Some("it has signs that are not printable UTF-8"),
        _ => None,
    })
}

/// Whether an object would be read if a file could have its path.
pub fn is_meant_for_martd(path: &str) -> bool {
    let names = path.split('/').filter(|name| !["", ".", ".."].contains(name));
    kind_of(&names.collect::<Vec<_>>()).is_some()
}

/// What an object of this path is; `None` when it is nothing that martd reads.
pub fn kind(path: &str) -> Option<ObjectKind> {
    if unusable(path).is_some() {
        return None;
    }
    kind_of(&path.split('/').collect::<Vec<_>>())
}

fn kind_of(names: &[&str]) -> Option<ObjectKind> {
    let is_data = |name: &str| name.ends_with(EXTENSION) && hidden(name).is_none();
    match names {
        [FIRST_EDITION] => Some(ObjectKind::Record),
        [name] => is_data(name).then_some(ObjectKind::Data),
        [RECORDS, name] => record_id(name).map(|_| ObjectKind::Record),
        [mart, folders @ .., name] => {
            // As the scan does: a key of a partition may be called `_year`.
            let is_folder = |name: &&str| hidden(name).is_none() || name.contains('=');
            if hidden(mart).is_some() || mart.ends_with(EXTENSION) || !folders.iter().all(is_folder)
            {
                return None;
            }
            let is_success = folders.is_empty() && *name == SUCCESS;
            match is_success {
                true => Some(ObjectKind::Success),
                false => is_data(name).then_some(ObjectKind::Data),
            }
        }
        [] => None,
    }
}

/// The build whose record has this file name.
fn record_id(name: &str) -> Option<&str> {
    name.strip_suffix(".json").filter(|id| is_id(id))
}

/// The build whose record has this path.
pub fn record_of(path: &str) -> Option<&str> {
    record_id(path.strip_prefix(RECORDS)?.strip_prefix('/')?)
}

/// The directory of parts that a file is in.
pub fn directory(path: &str) -> Option<&str> {
    path.split_once('/').map(|(mart, _)| mart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_martd_reads_is_mirrored_and_nothing_else() {
        use ObjectKind::{Data, Record, Success};
        for (path, expected) in [
            ("orders.parquet", Some(Data)),
            ("a*b c.parquet", Some(Data)),
            ("sales/day=1/part.parquet", Some(Data)),
            ("sales/_year=2026/part.parquet", Some(Data)),
            ("sales/_SUCCESS", Some(Success)),
            ("_builds/b1.json", Some(Record)),
            ("_builds/_b1.json", Some(Record)),
            ("_build.json", Some(Record)),
            ("sales/day=1/_SUCCESS", None),
            ("_builds/tmp_b1.json", None),
            ("_builds/.b1.json", None),
            ("_builds/b1.txt", None),
            ("_mirror.json", None),
            (".mirror/state.json", None),
            ("tmp_orders.parquet", None),
            ("_x.parquet", None),
            ("_x/part.parquet", None),
            ("x.parquet/part.parquet", None),
            ("sales/_tmp/part.parquet", None),
            ("sales/notes.txt", None),
            ("../orders.parquet", None),
            ("sales/../../x.parquet", None),
            ("sales//x.parquet", None),
            ("a\nb.parquet", None),
            ("", None),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
        assert_eq!(record_of("_builds/b1.json"), Some("b1"));
        assert_eq!(record_of("_build.json"), None);
    }

    #[test]
    fn equal_marks_are_equal_content() {
        let version = |etag: Option<&str>, modified_ms| ObjectVersion {
            size: 1,
            etag: etag.map(str::to_owned),
            id: None,
            modified_ms,
        };
        assert!(version(Some("a"), 1).is_same_content_as(&version(Some("a"), 2)));
        assert!(!version(Some("a"), 1).is_same_content_as(&version(Some("b"), 1)));
        assert!(!version(None, 1).is_same_content_as(&version(None, 2)));
    }
}
