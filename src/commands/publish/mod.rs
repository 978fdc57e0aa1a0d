//! `martd publish`: vouches for marts in a record, for every writer that can run a command.

mod dbt;
mod hashing;
mod report;
mod upload;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use uuid::Uuid;

use super::records::Records;
use super::wait::ServedArgs;
use super::{
    CommandError, EXIT_NO, EXIT_UNSENT, EXIT_USAGE, EXIT_WARN, asking, complain, print, wait, warn,
};
use crate::digest::Digest;
use crate::ledger::{self, Build, Ledger, Model, NodeResult, REFUSED, Record, Status};
use crate::mart_dir::MartDir;
use crate::mirror::{StoreArgs, Uploaded};
use crate::scan::{OpenDir, Scan, differs_in_case};
use dbt::Artifacts;
pub(super) use dbt::Project;
use report::PublishReport;
use upload::Destination;

/// Builds whose records are never compacted.
const KEEP_RECORDS: usize = 10;

/// What `publish` needs.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The marts to vouch for as they are [default: all in the directory that no other project has]
    #[arg(conflicts_with = "dbt_target")]
    marts: Vec<String>,

    /// PARQUET_DIR, or what `martd serve` was given: a directory with Parquet files, or with a directory
    /// `mart` of them
    #[arg(long = "dir", env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,

    /// The build's id [default: a new one; with --dbt-target, dbt's invocation]
    #[arg(long, value_name = "ID")]
    build: Option<String>,

    /// dbt's target directory, right after dbt has built or tested: vouches for what that run wrote
    #[arg(long, value_name = "DIR", conflicts_with = "build")]
    dbt_target: Option<PathBuf>,

    /// With --dbt-target: vouch for marts whose tests have not run
    #[arg(long, requires = "dbt_target")]
    untested: bool,

    /// Hold everything until NODE is cleared or succeeds; by itself vouches for no file
    #[arg(long, value_name = "NODE=MESSAGE", value_parser = parse_failure)]
    fail: Vec<(String, String)>,

    /// NODE does not hold any more; by itself vouches for no file
    #[arg(long, value_name = "NODE")]
    clear: Vec<String>,

    /// Fold old records into few; by itself vouches for no file
    #[arg(long)]
    compact: bool,

    /// Then send what is recorded to an object store, files first: s3://BUCKET/PREFIX
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// With --to: record nothing, and send what is recorded already; also again what is not in the
    /// bucket as it was recorded
    #[arg(long, requires = "to", conflicts_with_all = ["marts", "dbt_target", "build", "fail", "clear", "compact"])]
    recorded: bool,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    served: ServedArgs,
}

fn parse_failure(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(node, _)| !node.is_empty());
    let (node, message) = parts.ok_or_else(|| "write it as NODE=MESSAGE".to_owned())?;
    Ok((node.to_owned(), message.to_owned()))
}

/// What is to be recorded, before any file was looked at.
struct Plan {
    build: Build,
    results: Vec<NodeResult>,
    nodes: Option<BTreeSet<String>>,
    claims: Vec<Claim>,
    unserved: Vec<Unserved>,
}

impl Plan {
    fn new(build: Build) -> Self {
        Self { build, results: Vec::new(), nodes: None, claims: Vec::new(), unserved: Vec::new() }
    }
}

/// A mart that may be vouched for.
struct Claim {
    model: Model,
    /// When its files must have been written.
    window: Option<(Timestamp, Timestamp)>,
    /// Whether parts of earlier runs stay, and are the mart as well.
    keeps_parts: bool,
}

/// A node that writes what martd does not serve.
struct Unserved {
    id: String,
    reason: String,
}

pub(super) fn run(args: PublishArgs) -> ExitCode {
    let compacts = args.compact;
    let to = args.to.as_ref().map(|url| Destination::open(url, &args.store));
    let mut destination = match to.transpose() {
        Ok(destination) => destination,
        Err(problem) => return complain(&problem, EXIT_USAGE),
    };
    let dir = MartDir::either(&args.parquet_dir);
    let mart_dir = dir.path().to_owned();
    let (mut records, open) = match Records::open(&dir) {
        Ok(read) => read,
        Err(problem) => return complain(&problem, EXIT_NO),
    };
    let mut report = PublishReport::default();
    let mut unreachable = None;
    if !only_compacts(&args) && !args.recorded {
        let plan = match plan(&args, &mart_dir, &open, records.fold().as_ref()) {
            Ok(plan) => plan,
            Err(problem) => return complain(&problem, EXIT_USAGE),
        };
        if let Some(destination) = &mut destination {
            // What is built is recorded all the same.
            unreachable = look(destination, &mut records).err();
        }
        if let Err(problem) = publish(plan, &open, &mut records, &mut report) {
            return complain(&problem, EXIT_NO);
        }
    }
    if compacts {
        if records.has_first_edition {
            let problem =
                "_build.json is a ledger of the first edition; remove it before you compact";
            return complain(problem, EXIT_USAGE);
        }
        match records.compact(&open, KEEP_RECORDS, &new_id("compact")) {
            Ok(fewer) => report.compacted = Some(fewer),
            Err(error) => return complain(&format!("compacting failed: {error}"), EXIT_NO),
        }
    }
    if let Some(ledger) = records.fold() {
        report.outstanding = ledger.outstanding;
    }
    if let Some(mut destination) = destination {
        let (uploaded, outcome) = match unreachable {
            Some(problem) => (Uploaded::default(), Err(problem)),
            None => destination.send(&open, records.all(), args.recorded),
        };
        uploaded.warnings.iter().for_each(|warning| warn(warning));
        report.uploaded = Some(uploaded);
        if let Err(problem) = outcome {
            print(&report.text());
            let unsent = report.unsent(destination.url());
            return complain(&format!("{problem}; {unsent}"), EXIT_UNSENT);
        }
    }
    print(&report.text());
    let served = args.served;
    match (report.code(), report.build) {
        (_, Some(build)) if served.wait => {
            let told = asking(wait::wait_for(build, served.timeout, served.server));
            told.unwrap_or_else(CommandError::tell)
        }
        (code, _) => code,
    }
}

/// Looks at the records that an object store has, for what is recorded now is to come after them.
fn look(destination: &mut Destination, records: &mut Records) -> Result<(), String> {
    let others = destination.look(records.all())?.to_vec();
    records.know_of(others, destination.url());
    Ok(())
}

fn only_compacts(args: &PublishArgs) -> bool {
    args.compact && args.marts.is_empty() && args.dbt_target.is_none() && has_no_nodes(args)
}

fn has_no_nodes(args: &PublishArgs) -> bool {
    args.fail.is_empty() && args.clear.is_empty()
}

/// An id that no other build has.
pub(super) fn new_id(word: &str) -> String {
    format!("{word}-{}", Uuid::now_v7().simple())
}

fn plan(
    args: &PublishArgs,
    mart_dir: &std::path::Path,
    open: &OpenDir,
    ledger: Option<&Ledger>,
) -> Result<Plan, String> {
    let mut plan = match &args.dbt_target {
        Some(target) => Artifacts::read(target)?.plan(mart_dir, open, args.untested)?,
        None => as_it_is(args, open, ledger)?,
    };
    for (id, message) in &args.fail {
        plan.results.push(dbt::failed(id, message.clone()));
    }
    for id in &args.clear {
        let known = ledger.iter().flat_map(|ledger| &ledger.outstanding);
        let Some(known) = known.clone().find(|known| known.unique_id == *id) else {
            let all: Vec<&str> = known.map(|known| known.unique_id.as_str()).collect();
            return Err(format!(
                "--clear {id}: nothing of that name is outstanding; there is [{}]",
                all.join(", ")
            ));
        };
        let is_alone = plan.claims.is_empty() && args.dbt_target.is_none() && args.fail.is_empty();
        if known.project != plan.build.project && !is_alone {
            return Err(format!(
                "--clear {id}: it is of another project; clear it in a command of its own"
            ));
        }
        plan.build.project.clone_from(&known.project);
        let (id, status) = (id.clone(), "success".to_owned());
        plan.results.push(NodeResult { id, status, message: None, since: None });
    }
    Ok(plan)
}

/// Without dbt: the files as they are.
fn as_it_is(args: &PublishArgs, open: &OpenDir, ledger: Option<&Ledger>) -> Result<Plan, String> {
    let id = args.build.clone().unwrap_or_else(|| new_id("publish"));
    if !ledger::is_id(&id) {
        return Err(format!(
            "--build {id:?}: a build's id has letters, digits, dots, dashes and underscores"
        ));
    }
    let mut plan = Plan::new(Build::now(id, "martd publish"));
    let models = ledger.iter().flat_map(|ledger| &ledger.models);
    let is_of_others = |name: &String| {
        // Writers without a project have no ids of their own.
        models.clone().any(|model| model.name == *name && model.unique_id.is_some())
    };
    let mut names = args.marts.clone();
    if let Some(name) = names.iter().find(|name| is_of_others(name)) {
        return Err(format!("{name} is a mart of a dbt project; publish it with --dbt-target"));
    }
    if names.is_empty() && !has_no_nodes(args) {
        return Ok(plan); // it vouches for no file
    }
    let scan = scan(open, ledger)?;
    let mut there: Vec<String> = scan.candidates.into_iter().map(|found| found.name).collect();
    there.extend(scan.unseen.into_keys().chain(scan.same_names.into_keys())); // which is said below
    there.retain(|name| !is_of_others(name));
    // A file may have gone; a name that nobody knows is a slip of the hand, and would hold everything.
    let is_known = |name: &String| there.contains(name) || models.clone().any(|m| m.name == *name);
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        return Err(format!("there is no mart {name}; there is [{}]", there.join(", ")));
    }
    if names.is_empty() {
        names = there;
        // What is gone has left; what failed for another reason than its file has not.
        let outstanding = ledger.iter().flat_map(|ledger| &ledger.outstanding);
        let failed = outstanding.filter(|known| known.status != REFUSED);
        let failed = failed.map(|known| known.unique_id.clone());
        plan.nodes = Some(names.iter().cloned().chain(failed).collect());
    }
    let claim = |name| Claim { model: Model::named(name), window: None, keeps_parts: false };
    plan.claims = names.into_iter().map(claim).collect();
    Ok(plan)
}

/// What is there, as a martd sees it that starts now.
fn scan(open: &OpenDir, ledger: Option<&Ledger>) -> Result<Scan, String> {
    let is_known = |name: &str| ledger.is_some_and(|ledger| ledger.names(name));
    let scan = open.scan(is_known, |_, _| {});
    scan.map_err(|error| format!("the mart directory cannot be read: {error}"))
}

/// Looks at the files, and writes the record.
fn publish(
    mut plan: Plan,
    dir: &OpenDir,
    records: &mut Records,
    report: &mut PublishReport,
) -> Result<(), String> {
    let id = plan.build.id.clone();
    let mut before = records.of_build(&id).cloned();
    if before.is_none() && records.path(&id).exists() {
        let problem = |error| format!("build {id} has a record already, which {error}; remove it");
        before = Some(records.load(dir, &id).cloned().map_err(problem)?);
    }
    let elsewhere = records.of_build_elsewhere(&id).filter(|_| before.is_none()).cloned();
    if before.is_none() && elsewhere.is_none() {
        plan.build.finished_at = records.end_after_all(plan.build.finished_at)?;
    }
    if !plan.claims.is_empty() {
        let same_names = scan(dir, records.fold().as_ref())?.same_names;
        let mut claimed = plan.claims.iter().map(|claim| &claim.model.name);
        if let Some((name, other)) = claimed.find_map(|name| same_names.get_key_value(name)) {
            let problem = differs_in_case(other);
            return Err(format!("nothing is recorded: {name}: {problem}, and publish again"));
        }
    }
    let outcomes = hashing::look(&plan.claims, &id, dir)?;
    let mut marts = Vec::new();
    for (claim, outcome) in plan.claims.into_iter().zip(outcomes) {
        let node = claim.model.node().to_owned();
        match outcome {
            Ok(files) => {
                if !plan.results.iter().any(|result| result.id == node) {
                    let (id, status) = (node, "success".to_owned());
                    plan.results.push(NodeResult { id, status, message: None, since: None });
                }
                report.vouched(&claim.model.name, &files);
                marts.push(Model { files, ..claim.model });
            }
            Err(reason) => {
                report.refused(&claim.model.name, &reason);
                let (status, message) = (REFUSED.to_owned(), Some(reason));
                plan.results.retain(|result| result.id != node);
                plan.results.push(NodeResult { id: node, status, message, since: None });
            }
        }
    }
    if plan.results.iter().any(|result| !result.has_passed()) {
        plan.build.status = Status::Error;
    }
    report.already = elsewhere.is_some();
    let mut record = Record::new(plan.build);
    (record.marts, record.results, record.nodes) = (marts, plan.results, plan.nodes);
    record.check().map_err(|problem| format!("nothing is recorded: {problem}"))?;
    report.unserved = plan.unserved;
    report.ran = record.results.len();
    report.build = Some(id.clone());
    if let Some(elsewhere) = elsewhere {
        if !says_the_same(&elsewhere, &record) {
            return Err(format!(
                "nothing is recorded: the bucket has build {id} already, with other files or results, and records are \
                 never changed; build again under another id"
            ));
        }
        record = elsewhere;
    }
    if before.is_none() {
        match records.write(&record) {
            Ok(path) => {
                report.record = Some(path);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // another command was faster
            Err(error) => return Err(format!("the record cannot be written: {error}")),
        }
    }
    let before = match before {
        Some(before) => before,
        None => records.load(dir, &id).cloned().map_err(|error| format!("build {id}: {error}"))?,
    };
    if !says_the_same(&before, &record) {
        return Err(format!(
            "build {id} is recorded already, with other files or results, and records are never changed; \
             build again"
        ));
    }
    report.record = Some(records.path(&id));
    report.already = true;
    Ok(())
}

/// Whether two records of a build vouch for the same files, and name the same failures.
fn says_the_same(one: &Record, other: &Record) -> bool {
    let files = |record: &Record| -> BTreeSet<(String, Digest)> {
        let files = record.marts.iter().flat_map(|mart| &mart.files);
        files.map(|file| (file.path.clone(), file.sha256)).collect()
    };
    let failed = |record: &Record| -> BTreeSet<String> {
        let failed = record.results.iter().filter(|result| !result.has_passed());
        failed.map(|result| result.id.clone()).collect()
    };
    files(one) == files(other) && failed(one) == failed(other)
}
