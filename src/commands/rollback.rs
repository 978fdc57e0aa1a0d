//! `martd rollback`: an earlier build is served again, although the last one passed its tests.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::publish::new_id;
use super::records::Records;
use super::{EXIT_NO, EXIT_USAGE, complain, print};
use crate::ledger::{Build, Record, Status};
use crate::mart_dir::MartDir;

/// The builds that a mistaken id is answered with.
const NAMED: usize = 5;

/// What `rollback` needs.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The build to serve again
    #[arg(required_unless_present = "release", conflicts_with = "release")]
    build: Option<String>,

    /// Serve the newest build again
    #[arg(long)]
    release: bool,

    /// PARQUET_DIR, or what `martd serve` was given: its subdirectory `mart` holds the records, or it
    /// does itself
    #[arg(long = "dir", env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,
}

pub(super) fn run(args: RollbackArgs) -> ExitCode {
    let mart_dir = MartDir::either(args.parquet_dir).path().to_owned();
    let mut records = match Records::read(&mart_dir) {
        Ok(records) => records,
        Err(error) => {
            return complain(&format!("{} cannot be read: {error}", mart_dir.display()), EXIT_NO);
        }
    };
    let Some(ledger) = records.fold() else {
        return complain(&format!("{} has no records", mart_dir.display()), EXIT_NO);
    };
    if args.release && ledger.rollback.is_none() {
        return complain("no rollback is in force", EXIT_USAGE);
    }
    let now = Timestamp::now();
    let mut record = Record::new(Build {
        id: new_id(if args.release { "release" } else { "rollback" }),
        started_at: now,
        finished_at: now,
        writer: Some("martd rollback".to_owned()),
        project: None,
        status: Status::Success,
    });
    (record.rollback, record.release) = (args.build.clone(), args.release);
    if let Some(build) = &args.build {
        let newest: Vec<&str> =
            ledger.builds.iter().rev().take(NAMED).map(String::as_str).collect();
        match records.fold_with(&record).and_then(|ledger| ledger.rollback?.ledger) {
            None => {
                let problem =
                    format!("no record is of build {build}; the newest are {}", newest.join(", "));
                return complain(&problem, EXIT_USAGE);
            }
            Some(earlier) => {
                if let Some(node) = earlier.outstanding.first() {
                    let problem = format!(
                        "build {build} was held itself: {} {}",
                        node.unique_id, node.status
                    );
                    return complain(&problem, EXIT_USAGE);
                }
            }
        }
    }
    match records.write(record) {
        Ok(_) => {
            let newest = &ledger.invocation_id;
            print(&match (&args.build, ledger.outstanding.first()) {
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
            ExitCode::SUCCESS
        }
        Err(error) => complain(&format!("the record cannot be written: {error}"), EXIT_NO),
    }
}
