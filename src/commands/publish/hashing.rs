//! Reads each file that is to be vouched for, once, and says whether it can be: of a mart that is a directory,
//! all parts.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IsTerminal};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Claim;
use crate::ledger::File;
use crate::marts::build::{Footer, has_tail};
use crate::pin::{Budget, Pin};
use crate::scan::{Candidate, Found, MOST_PARTS, OpenDir, both_are_there, file_name};

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(50);

/// What becomes of each claim: its files, or why it is refused.
///
/// # Errors
/// When a mart is there twice. A record could vouch for neither, and could not be made again when one is gone.
pub(super) fn look(
    claims: &[Claim],
    build: &str,
    dir: &OpenDir,
) -> Result<Vec<Result<Vec<File>, String>>, String> {
    // Nothing is copied: a held file is hashed as one that fits.
    let budget = Budget::new(0);
    let found: Vec<_> = claims.iter().map(|claim| find(claim, dir)).collect::<Result<_, _>>()?;
    let sizes = found.iter().flatten().map(Candidate::size);
    let bar = ProgressBar::new(sizes.sum());
    let look = || {
        let found = claims.iter().zip(found);
        found.map(|(claim, found)| look_at(claim, found?, build, dir, &budget)).collect()
    };
    if !std::io::stderr().is_terminal() {
        return Ok(look());
    }
    let style = "{spinner} hashing {wide_bar} {bytes} of {total_bytes}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("a template"));
    let outcomes = thread::scope(|scope| {
        let work = scope.spawn(look);
        while !work.is_finished() {
            bar.set_position(budget.bytes_read());
            thread::sleep(TICK);
        }
        work.join().expect("hashing does not panic")
    });
    bar.finish_and_clear();
    Ok(outcomes)
}

/// The file of a mart, or its directory with parts; or why there is neither. An error when both are there.
fn find(claim: &Claim, dir: &OpenDir) -> Result<Result<Candidate, String>, String> {
    let name = &claim.model.name;
    let path = file_name(name, false);
    let parts = match dir.parts(name, |_| {}) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => None,
        Err(error) => return Ok(Err(format!("{}: {error}", file_name(name, true)))),
        Ok(parts) => parts,
    };
    let parts = parts.filter(|parts| !parts.files.is_empty());
    let file = dir.identity(&path).map(|identity| Found { path: path.clone(), identity });
    Ok(match (file, parts) {
        (Some(_), Some(_)) => {
            let reason = both_are_there(name);
            return Err(format!("nothing is recorded: {reason}, and publish again"));
        }
        (Some(file), None) => {
            Ok(Candidate { name: name.clone(), files: vec![file], directory: None })
        }
        (None, Some(parts)) => Ok(parts),
        (None, None) => {
            let error = dir.open_file(&path).err();
            Err(format!(
                "{path}: {}",
                error.map_or("is no file".to_owned(), |error| error.to_string())
            ))
        }
    })
}

fn look_at(
    claim: &Claim,
    found: Candidate,
    build: &str,
    dir: &OpenDir,
    budget: &Arc<Budget>,
) -> Result<Vec<File>, String> {
    let Some(directory) = &found.directory else {
        return hash_all(claim, &found.files.iter().collect::<Vec<_>>(), build, dir, budget);
    };
    let shown = found.file_name();
    if let Some(problem) = &directory.problem {
        return Err(format!("{shown} {problem}"));
    }
    // What a writer leaves that does not empty the directory: models and tests that read it saw those rows.
    let is_left = |part: &&Found| match claim.window {
        Some((from, _)) if !claim.keeps_parts => part.identity.modified() < from,
        _ => false,
    };
    let parts: Vec<&Found> = found.files.iter().collect();
    let left: Vec<&&Found> = parts.iter().filter(|part| is_left(part)).collect();
    if left.len() == parts.len() {
        return Err(format!("{shown} has no part of the run that claims it; build it again"));
    }
    if let Some(first) = left.first() {
        let more = match left.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        return Err(format!(
            "{} is not of this run{more}, and what reads the model has its rows: set overwrite: true in its \
             options (append: true, if old parts are to stay), and build it again with what reads it",
            first.path
        ));
    }
    if parts.len() > MOST_PARTS {
        let count = parts.len();
        return Err(format!("{shown} has {count} parts, and martd serves at most {MOST_PARTS}"));
    }
    let files = hash_all(claim, &parts, build, dir, budget)?;
    match dir.parts(&found.name, |_| {}) {
        Ok(Some(now)) if now == found => Ok(files),
        _ => Err(format!("{shown} has changed while it was read; publish it again")),
    }
}

/// Hashes files that are a mart together. A stamp that all of them have must be the build's.
fn hash_all(
    claim: &Claim,
    found: &[&Found],
    build: &str,
    dir: &OpenDir,
    budget: &Arc<Budget>,
) -> Result<Vec<File>, String> {
    let (mut files, mut stamps) = (Vec::new(), BTreeSet::new());
    for Found { path, .. } in found {
        let (file, stamp) = hash(claim, path, dir, budget)?;
        files.push(file);
        stamps.insert(stamp);
    }
    match (stamps.len(), stamps.pop_first().flatten()) {
        (1, Some(stamp)) if stamp != build => Err(format!(
            "{} is stamped with build {stamp}; publish it with --build {stamp}, or after that dbt run \
             with --dbt-target",
            files[0].path
        )),
        _ => Ok(files),
    }
}

/// Hashes a file. Returns the build that its footer names, too.
fn hash(
    claim: &Claim,
    path: &str,
    dir: &OpenDir,
    budget: &Arc<Budget>,
) -> Result<(File, Option<String>), String> {
    let file = dir.open_file(path).map_err(|error| format!("{path}: {error}"))?;
    let whole = has_tail(&file).map_err(|error| format!("{path} cannot be read: {error}"))?;
    whole.map_err(|reason| format!("{path} {reason}"))?;
    let pin = Pin::new(file, budget).map_err(|error| format!("{path} {error}"))?;
    let modified = pin.identity().modified();
    match claim.window {
        Some((_, to)) if modified > to => {
            return Err(format!("{path} changed after its model had ended; build it again"));
        }
        Some((from, _)) if modified < from && !claim.keeps_parts => {
            return Err(format!("{path} is older than the run that claims it; build it again"));
        }
        _ => {}
    }
    let footer = Footer::read(&pin).map_err(|error| format!("{path} {error}"))?;
    let file = File { path: path.to_owned(), bytes: pin.size(), sha256: pin.hash() };
    Ok((file, footer.invocation_id))
}
