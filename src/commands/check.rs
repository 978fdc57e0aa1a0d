//! `martd check`: what would be served and what is wrong, decided by what `serve` decides with.

use std::path::PathBuf;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;

use super::check_dbt;
use super::table::{Cell, TextTable, Tone, colours};
use super::{CommandError, EXIT_NO, EXIT_WARN, print, unreadable};
use crate::limits::{self, Shares};
use crate::mart_dir::MartDir;
use crate::publish::Hold;
use crate::refresh::{Inspected, Inspection, inspect};
use crate::scan::{Fault, Remark};
use crate::settings::SourceArgs;

const FILES: &str = "published file by file: no record says which belong together. `martd publish` and the dbt package write \
                     records\n";

/// What `check` needs: the settings of `serve` that decide what is served.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// In the place of --parquet-dir: a directory with Parquet files, or with a directory `mart` of them
    dir: Option<PathBuf>,

    /// Instead, look at the dbt project that has this target directory: which models would be served, and
    /// what is missing for whole builds
    #[arg(long, value_name = "DIR")]
    dbt_target: Option<PathBuf>,

    #[command(flatten)]
    source: SourceArgs,
}

pub(super) fn run(args: CheckArgs) -> Result<ExitCode, CommandError> {
    let mut source = args.source;
    source.dir = args.dir.map(MartDir::either);
    let intake = source.into_intake(Shares::of(limits::memory().value, false));
    let intake = intake.map_err(CommandError::usage)?;
    let dir = &intake.dir;
    if let Some(target) = args.dbt_target {
        return check_dbt::run(&target, dir);
    }
    let inspection = inspect(&intake)
        .map_err(|error| unreadable(dir, &error, "`martd bootstrap` creates it"))?;
    let shown = dir.path().display().to_string();
    print(&report(&inspection, &shown, colours()));
    let serves = inspection.marts.iter().any(|mart| mart.served);
    let is_reading = !inspection.landing.is_empty();
    let is_held_back = |held: &Hold| !held.is_under_way(is_reading);
    Ok(match &inspection.held {
        _ if !serves || !inspection.rejected.is_empty() => EXIT_NO.into(),
        Some(held) if is_held_back(held) => EXIT_NO.into(),
        Some(_) => EXIT_WARN.into(),
        None => ExitCode::SUCCESS,
    })
}

fn report(inspection: &Inspection, directory: &str, colours: bool) -> String {
    let mut table =
        TextTable::new(["file", "would be", "rows", "size", "written", "build", ""], &[2, 3]);
    for mart in &inspection.marts {
        let (word, tone) = fate(mart, inspection.verified);
        table.row(vec![
            mart.file.as_str().into(),
            Cell::new(word, tone),
            mart.rows.into(),
            ByteSize::b(mart.bytes).into(),
            mart.modified.strftime("%F %T UTC").into(),
            mart.build.as_deref().unwrap_or("-").into(),
            Cell::remark(waiting_for(inspection, &mart.file)),
        ]);
    }
    let mut entry = |file: &str, word: &str, tone: Tone, reason: &str| {
        let mut cells = vec![file.into(), Cell::new(word, tone)];
        cells.extend(["", "", "", ""].map(Cell::from));
        cells.push(Cell::remark(reason));
        table.row(cells);
    };
    for Fault { file, reason, .. } in &inspection.landing {
        entry(file, "landing", Tone::Warn, reason);
    }
    for Fault { file, reason, .. } in &inspection.rejected {
        entry(file, "rejected", Tone::Bad, reason);
    }
    for Remark { file, reason } in &inspection.ignored {
        entry(file, "ignored", Tone::Dim, reason);
    }
    let mut text = table.render(colours);
    if let Some(held) = &inspection.held {
        text.push_str(&format!("held: {}\n", held.reason));
    }
    if let Some(problem) = &inspection.unknown_state {
        text.push_str(&format!("the state directory (MARTD_STATE_DIR) is left out: {problem}\n"));
    }
    if !inspection.recorded {
        text.push_str(FILES);
    }
    let served = inspection.marts.iter().filter(|mart| mart.served).count();
    text.push_str(&match served {
        0 => format!("nothing in {directory} would be served\n"),
        1 => format!("1 mart of {directory} would be served\n"),
        more => format!("{more} marts of {directory} would be served\n"),
    });
    text
}

fn fate(mart: &Inspected, verified: bool) -> (&'static str, Tone) {
    match (mart.served, mart.orphan, verified) {
        (true, ..) if !mart.is_newest => ("served (as last)", Tone::Warn),
        (true, true, _) => ("served (orphan)", Tone::Warn),
        (true, false, true) => ("served", Tone::Good),
        (true, false, false) => ("served unverified", Tone::Warn),
        (false, ..) => ("held", Tone::Warn),
    }
}

/// Why a mart's file belongs to no finished build, if it does not.
fn waiting_for<'i>(inspection: &'i Inspection, file: &str) -> &'i str {
    let pending = inspection.held.iter().flat_map(|held| &held.pending);
    pending.into_iter().find(|pending| pending.file == file).map_or("", |found| &found.reason)
}
