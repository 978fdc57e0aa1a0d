//! `GET /v1/snapshot`: what is served, what is not, and why.

use jiff::Timestamp;
use serde::Serialize;

use super::access::Sizes;
use crate::catalog::{Held, Publishing, Snapshot, Source, State};
use crate::ledger::{Ledger, Status};
use crate::marts::build::{ReportColumn, TableKind};
use crate::mirror::{MirrorFailure, MirrorStatus};
use crate::pin::PinKind;
use crate::scan::Fault;
use crate::scan::Remark;
use crate::watch::WatchMode;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotDocument<'s> {
    id: Option<&'s str>,
    generation: Option<u64>,
    source: Source,
    publishing: Publishing,
    published_at: Option<Timestamp>,
    build: Option<BuildDocument<'s>>,
    verified: bool,
    held: Option<&'s Held>,
    building: Option<&'s Held>,
    marts: Vec<Mart<'s>>,
    rejected: &'s [Fault],
    landing: &'s [Fault],
    ignored: &'s [Remark],
    retained: Vec<&'s str>,
    watch: WatchMode,
    watch_degraded: Option<&'s str>,
    directory: Option<&'s str>,
    /// Why the legacy file is not served, where it should be.
    legacy: Option<String>,
    mirror: Option<MirrorDocument<'s>>,
}

/// The mirror that fills the directory.
#[derive(Debug, Serialize)]
pub(super) struct MirrorDocument<'s> {
    source: &'s str,
    checked_at: Timestamp,
    succeeded_at: Option<Timestamp>,
    objects: u64,
    bytes: u64,
    objects_behind: u64,
    bytes_behind: u64,
    seconds_behind: u64,
    silent: bool,
    error: Option<&'s MirrorFailure>,
}

impl<'s> MirrorDocument<'s> {
    pub(super) fn of(status: &'s MirrorStatus, now: Timestamp) -> Self {
        Self {
            source: &status.source,
            checked_at: status.checked_at,
            succeeded_at: status.succeeded_at,
            objects: status.objects,
            bytes: status.bytes,
            objects_behind: status.behind.objects,
            bytes_behind: status.behind.bytes,
            seconds_behind: status.seconds_behind(now),
            silent: status.is_silent(now),
            error: status.error.as_ref(),
        }
    }
}

/// The build that a snapshot shows.
#[derive(Debug, Serialize)]
pub(super) struct BuildDocument<'s> {
    invocation_id: &'s str,
    started_at: Timestamp,
    finished_at: Timestamp,
    status: Status,
}

#[derive(Debug, Serialize)]
struct Mart<'s> {
    name: &'s str,
    /// Sizes are for those who may know them.
    rows: Option<u64>,
    bytes: Option<u64>,
    mtime: Timestamp,
    pin: PinKind,
    /// One, or the parts of a directory.
    files: usize,
    table: TableKind,
    table_bytes: Option<u64>,
    invocation_id: Option<&'s str>,
    orphan: bool,
    columns: &'s [ReportColumn],
}

impl<'s> BuildDocument<'s> {
    pub(super) fn of(ledger: &'s Ledger) -> Self {
        Self {
            invocation_id: &ledger.invocation_id,
            started_at: ledger.started_at,
            finished_at: ledger.finished_at,
            status: ledger.status,
        }
    }
}

impl<'s> SnapshotDocument<'s> {
    pub(super) fn of(state: &'s State, sizes: Sizes<'_>) -> Self {
        let snapshot = state.snapshot.as_deref();
        Self {
            id: snapshot.map(|snapshot| snapshot.id.as_str()),
            generation: snapshot.map(|snapshot| snapshot.generation),
            source: state.source(),
            publishing: state.publishing,
            published_at: snapshot.map(|snapshot| snapshot.published_at),
            build: snapshot.and_then(Snapshot::vouching).map(BuildDocument::of),
            verified: snapshot.is_some_and(|snapshot| snapshot.verified),
            held: state.held_back(),
            building: state.under_way(),
            marts: snapshot.map(|snapshot| marts(snapshot, sizes)).unwrap_or_default(),
            rejected: &state.rejected,
            landing: &state.landing,
            ignored: &state.ignored,
            retained: state.retained.iter().map(|retained| retained.snapshot.id.as_str()).collect(),
            watch: state.watch,
            watch_degraded: state.watch_degraded.as_deref(),
            directory: state.directory.as_deref(),
            legacy: state.legacy.as_ref().map(ToString::to_string),
            mirror: state
                .mirror
                .as_ref()
                .map(|status| MirrorDocument::of(status, Timestamp::now())),
        }
    }
}

fn marts<'s>(snapshot: &'s Snapshot, sizes: Sizes<'_>) -> Vec<Mart<'s>> {
    let sized = |name: &str, mart, size| sizes.show(name, mart).then_some(size);
    snapshot
        .marts
        .iter()
        .map(|(name, mart)| Mart {
            name,
            rows: sized(name, mart, mart.rows()),
            bytes: sized(name, mart, mart.version.pin.size()),
            mtime: mart.version.modified(),
            pin: mart.version.pin.kind(),
            files: mart.version.pin.files().len(),
            table: mart.table.kind(),
            table_bytes: sized(name, mart, mart.table.bytes()),
            invocation_id: mart.build.as_deref(),
            orphan: mart.orphan,
            columns: mart.columns(),
        })
        .collect()
}
