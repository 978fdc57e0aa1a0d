//! `martd rollback`: an earlier build is served again, although the last one passed its tests.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::publish::new_id;
use super::records::Records;
use super::table::{Cell, TextTable, Tone, colours};
use super::wait::{self, ServedArgs};
use super::{CommandError, asking, print};
use crate::ledger::{Build, Ledger, Record};
use crate::mart_dir::MartDir;

/// The builds that are listed.
const LISTED: usize = 20;
/// The builds that a mistaken id is answered with.
const NAMED: usize = 5;

/// What `rollback` needs.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The build to serve again, or the beginning of its id [default: none; the builds are listed]
    #[arg(conflicts_with = "release")]
    build: Option<String>,

    /// Serve the newest build again
    #[arg(long)]
    release: bool,

    /// PARQUET_DIR, or what `martd serve` was given: its subdirectory `mart` holds the records, or it
    /// does itself
    #[arg(long = "dir", env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,

    #[command(flatten)]
    served: ServedArgs,
}

pub(super) fn run(args: RollbackArgs) -> Result<ExitCode, CommandError> {
    let dir = MartDir::either(args.parquet_dir);
    let (mut records, _) = Records::open(&dir)?;
    let ledger = records.fold();
    let ledger = ledger.ok_or_else(|| format!("{} has no records", dir.path().display()))?;
    let now = records.end_after_all(Timestamp::now());
    if args.build.is_none() && !args.release {
        print(&list(&records, &ledger, now.unwrap_or(Timestamp::MAX)));
        return Ok(ExitCode::SUCCESS);
    }
    let now = now?;
    let record = match args.build.as_deref() {
        Some(start) => to(start, &records, &ledger, now),
        None => release(&ledger, now),
    };
    let record = record.map_err(CommandError::usage)?;
    let build = record.rollback.clone();
    records.write(&record).map_err(|error| format!("the record cannot be written: {error}"))?;
    let newest = ledger.invocation_id;
    print(&match (&build, ledger.outstanding.first()) {
        (Some(build), _) => format!(
            "recorded: every martd that has kept build {build} serves it, until martd rollback \
             --release; `martd freshness` says whether it is served\n"
        ),
        (None, None) => format!("recorded: the newest build {newest} is served again\n"),
        (None, Some(node)) => format!(
            "recorded: the rollback has ended, but the newest build {newest} is held: {} {}\n",
            node.unique_id, node.status
        ),
    });
    let ServedArgs { wait, timeout, server } = args.served;
    match (wait, build) {
        (false, _) => Ok(ExitCode::SUCCESS),
        (true, Some(build)) => asking(wait::for_rollback(build, timeout, server)),
        (true, None) => asking(wait::for_release(newest, timeout, server)),
    }
}

/// The record that rolls back to the build whose id begins so.
fn to(start: &str, records: &Records, ledger: &Ledger, now: Timestamp) -> Result<Record, String> {
    let begins = || ledger.builds.iter().rev().filter(|build| build.starts_with(start));
    let exact = ledger.builds.iter().find(|build| *build == start);
    let build = match (exact, begins().count()) {
        (Some(build), _) => build,
        (None, 1) => begins().next().expect("there is one"),
        (None, 0) => {
            let newest: Vec<&str> =
                ledger.builds.iter().rev().take(NAMED).map(String::as_str).collect();
            return Err(format!(
                "no record is of build {start}; the newest are {}, and martd rollback lists more",
                newest.join(", ")
            ));
        }
        (None, _) => {
            let all: Vec<&str> = begins().take(NAMED).map(String::as_str).collect();
            return Err(format!("{start} may be each of {}; write more of it", all.join(", ")));
        }
    };
    let mut record = Record::new(at(now, new_id("rollback")));
    record.rollback = Some(build.clone());
    let earlier = records.fold_with(&record).and_then(|ledger| ledger.rollback?.ledger);
    let Some(earlier) = earlier else {
        return Err(format!(
            "the record of build {build} was compacted, so what it had come to is not known"
        ));
    };
    match earlier.outstanding.first() {
        Some(node) => {
            Err(format!("build {build} was held itself: {} {}", node.unique_id, node.status))
        }
        None => Ok(record),
    }
}

fn release(ledger: &Ledger, now: Timestamp) -> Result<Record, String> {
    if ledger.rollback.is_none() {
        return Err("no rollback is in force".to_owned());
    }
    let mut record = Record::new(at(now, new_id("release")));
    record.release = true;
    Ok(record)
}

fn at(now: Timestamp, id: String) -> Build {
    let build = Build::now(id, "martd rollback");
    Build { finished_at: now.max(build.started_at), ..build }
}

/// The newest builds, and which of them could be served again.
fn list(records: &Records, ledger: &Ledger, now: Timestamp) -> String {
    let mut table = TextTable::new(["build", "ended", "by", ""], &[]);
    let known = ledger.builds.iter().rev().filter_map(|id| records.of_build(id));
    for Record { build, .. } in known.take(LISTED) {
        let state = match to(&build.id, records, ledger, now) {
            Err(problem) => Cell::remark(&problem),
            Ok(_) if build.id == ledger.invocation_id => Cell::new("the newest", Tone::Good),
            Ok(_) => Cell::new("can be served again", Tone::Plain),
        };
        let writer = build.writer.as_deref().unwrap_or("-").into();
        let ended = build.finished_at.strftime("%F %T UTC").to_string().into();
        table.row(vec![build.id.as_str().into(), ended, writer, state]);
    }
    let mut text = table.render(colours());
    if let Some(rollback) = &ledger.rollback {
        text.push_str(&format!(
            "rolled back to build {}, until martd rollback --release\n",
            rollback.build
        ));
    }
    text.push_str("martd rollback BUILD serves one again, where MARTD_STATE_DIR has kept it\n");
    text
}
