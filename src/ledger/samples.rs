//! Records for tests.

use jiff::Timestamp;

use super::{Build, File, Model, Record, Status};
use crate::digest::Digest;

/// A build that ended at this second since 1970, with a mart for each file: its path and its content.
pub(crate) fn record<P: AsRef<str>>(id: &str, second: i64, files: &[(P, &str)]) -> Record {
    let at = Timestamp::from_second(second).expect("a time");
    let mut record = Record::new(Build {
        id: id.to_owned(),
        started_at: at,
        finished_at: at,
        writer: None,
        project: None,
        status: Status::Success,
    });
    for (path, content) in files {
        let path = path.as_ref().to_owned();
        let name = path.split(['/', '.']).next().expect("a name").to_owned();
        let file = File { path, bytes: 1, sha256: Digest::of(content.as_bytes()) };
        record.marts.push(Model { files: vec![file], ..Model::named(name) });
    }
    record
}
