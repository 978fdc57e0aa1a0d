//! `_mirror.json`: what a mirror says of itself, for `serve` to show.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Its file, beside the marts.
pub(crate) const STATUS_FILE: &str = crate::scan::MIRROR_STATUS;
/// A mirror that goes on writes it once in an interval, or while it downloads.
const SILENT_INTERVALS: u32 = 3;
/// Beside intervals: time to list, and to write.
const SLACK: Duration = Duration::from_secs(10);

/// How a mirror is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// What it mirrors, as a URL.
    pub source: String,
    /// How often it looks.
    pub interval_seconds: f64,
    /// When the directory began to be a mirror of this.
    pub started_at: Timestamp,
    /// When it wrote this.
    pub checked_at: Timestamp,
    /// When the directory was last equal to the source.
    pub succeeded_at: Option<Timestamp>,
    /// What it mirrors at present.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// What is not here yet, as far as it knows.
    pub behind: Behind,
    /// Whether files are or will be here whose records are not: then nobody can tell yet which of them are one
    /// build. `serve` shows none of them until a record is here.
    #[serde(default)] // a mirror of an earlier version does not say
    pub awaits_record: bool,
    /// What is wrong, if something is.
    pub error: Option<MirrorFailure>,
}

/// What a mirror has yet to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Objects to write.
    pub objects: u64,
    /// What of them is to be downloaded, in bytes.
    pub bytes: u64,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorFailure {
    /// What, and what to do.
    pub reason: String,
    /// The object that it is about, if it is about one.
    pub object: Option<String>,
    /// Since when this has been so.
    pub since: Timestamp,
}

impl MirrorStatus {
    /// Whether the mirror has not been heard of for longer than it should: it has ended, or stands still.
    pub fn is_silent(&self, now: Timestamp) -> bool {
        let interval = Duration::from_secs_f64(self.interval_seconds.clamp(0.0, 86_400.0));
        let allowed = interval * SILENT_INTERVALS + SLACK;
        Duration::try_from(now.duration_since(self.checked_at)).is_ok_and(|silent| silent > allowed)
    }

    /// For how many seconds the directory may have differed from the source: 0 when it is equal as far as
    /// anybody knows, and the mirror's age when it has never been.
    pub fn seconds_behind(&self, now: Timestamp) -> u64 {
        let is_equal = self.error.is_none() && self.behind.objects == 0 && !self.is_silent(now);
        match self.succeeded_at {
            Some(_) if is_equal => 0,
            succeeded => {
                let since = now.duration_since(succeeded.unwrap_or(self.started_at));
                since.as_secs().max(0) as u64
            }
        }
    }

    /// Whether it fails, or has not been heard of.
    pub fn is_failing(&self, now: Timestamp) -> bool {
        self.error.is_some() || self.is_silent(now)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::ToSpan;

    use super::*;

    /// Of a mirror with which all is well.
    pub(in crate::mirror) fn status() -> MirrorStatus {
        let now = Timestamp::from_second(1_000).expect("a time");
        MirrorStatus {
            source: "s3://bucket/marts".to_owned(),
            interval_seconds: 5.0,
            started_at: now,
            checked_at: now,
            succeeded_at: Some(now),
            objects: 1,
            bytes: 10,
            behind: Behind::default(),
            awaits_record: false,
            error: None,
        }
    }

    #[test]
    fn a_silent_failing_or_writing_mirror_is_behind() {
        let at = |seconds: i64| Timestamp::from_second(1_000 + seconds).expect("a time");
        let well = status();
        assert_eq!(well.seconds_behind(at(20)), 0);
        assert!(!well.is_silent(at(25)) && well.is_silent(at(26)));
        assert_eq!(well.seconds_behind(at(60)), 60);
        let behind = MirrorStatus { behind: Behind { objects: 1, bytes: 5 }, ..status() };
        assert_eq!(behind.seconds_behind(at(2)), 2);
        let failure = MirrorFailure { reason: "no".to_owned(), object: None, since: at(0) };
        let failed = MirrorStatus { error: Some(failure), checked_at: at(7), ..status() };
        assert_eq!(failed.seconds_behind(at(8)), 8);
        let never = MirrorStatus { succeeded_at: None, ..status() };
        assert_eq!(never.seconds_behind(at(3)), 3);
        // A clock that was set back is no time travel.
        assert_eq!(behind.seconds_behind(at(0).checked_sub(9.seconds()).expect("a time")), 0);
    }
}
