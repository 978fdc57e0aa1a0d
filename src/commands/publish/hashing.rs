//! Reads each file that is to be vouched for, once, and says whether it can be.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Claim;
use crate::ledger::File;
use crate::marts::build::{Footer, has_tail};
use crate::pin::{Budget, Pin};

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(50);

/// What becomes of each claim: its file, or why it is refused.
pub(super) fn look(claims: &[Claim], build: &str, mart_dir: &Path) -> Vec<Result<File, String>> {
    // Nothing is copied: a held file is hashed as one that fits.
    let budget = Budget::new(0);
    let look = || claims.iter().map(|claim| look_at(claim, build, mart_dir, &budget)).collect();
    if !std::io::stderr().is_terminal() {
        return look();
    }
    let size =
        |claim: &Claim| fs::metadata(mart_dir.join(path(claim))).map_or(0, |found| found.len());
    let style = "{spinner} hashing {wide_bar} {bytes} of {total_bytes}, {eta} left";
    let bar = ProgressBar::new(claims.iter().map(size).sum());
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
    outcomes
}

fn path(claim: &Claim) -> String {
    format!("{}.parquet", claim.model.name)
}

fn look_at(
    claim: &Claim,
    build: &str,
    mart_dir: &Path,
    budget: &Arc<Budget>,
) -> Result<File, String> {
    let path = path(claim);
    let file = fs::File::open(mart_dir.join(&path)).map_err(|error| format!("{path}: {error}"))?;
    let whole = has_tail(&file).map_err(|error| format!("{path} cannot be read: {error}"))?;
    whole.map_err(|reason| format!("{path} {reason}"))?;
    let pin = Pin::new(file, budget).map_err(|error| format!("{path} {error}"))?;
    let modified = pin.identity().modified();
    match claim.window {
        Some((_, to)) if modified > to => {
            return Err(format!("{path} changed after its model had ended; build it again"));
        }
        Some((from, _)) if modified < from => {
            return Err(format!("{path} is older than the run that claims it; build it again"));
        }
        _ => {}
    }
    let footer = Footer::read(&pin).map_err(|error| format!("{path} {error}"))?;
    match footer.invocation_id {
        Some(stamp) if stamp != build => Err(format!(
            "{path} is stamped with build {stamp}; publish it with --build {stamp}, or after that dbt run \
             with --dbt-target"
        )),
        _ => Ok(File { path, bytes: pin.size(), sha256: pin.hash() }),
    }
}
