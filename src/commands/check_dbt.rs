//! `martd check --dbt-target`: which models of a dbt project would be marts, and what it lacks to be
//! published as whole builds. Nothing is run and no file is read but dbt's manifest.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use super::publish::Project;
use super::records::Records;
use super::table::{Cell, TextTable, Tone, colours};
use super::{CommandError, EXIT_NO, EXIT_WARN, print};
use crate::mart_dir::MartDir;

const NO_PACKAGE: &str = "the project does not use the dbt package `martd`, so its files are not published as \
                          whole builds: `martd init --dbt DIR` prints the lines to add. Or run `martd publish \
                          --dbt-target DIR` after each dbt build\n";
const NO_MART: &str = "no model would be served: make the marts external, or give them the post-hook \
                       {{ martd.export() }}; `martd init --dbt DIR` prints the lines to add\n";

pub(super) fn run(target: &Path, dir: &MartDir) -> Result<ExitCode, CommandError> {
    let mart_dir = dir.path();
    let project = Project::read(target);
    let project = project.map_err(|problem| format!("{problem}; `dbt parse` writes it"))?;
    let mut table = TextTable::new(["model", "is", "served as", ""], &[]);
    let (mut served, mut warns) = (BTreeSet::new(), false);
    for output in project.outputs(mart_dir) {
        let (mart, tone, remark) = match (output.mart, output.warning) {
            (Ok(name), warning) => {
                let tone = if warning.is_some() { Tone::Warn } else { Tone::Good };
                let mart = format!("mart.{name}");
                served.insert(name);
                warns |= warning.is_some();
                (mart, tone, warning.unwrap_or_default())
            }
            (Err(reason), _) => ("-".to_owned(), Tone::Warn, reason),
        };
        table.row(vec![
            output.id.into(),
            output.materialized.into(),
            Cell::new(mart, tone),
            Cell::remark(&remark),
        ]);
    }
    let mut text = table.render(colours());
    let doubles = project.doubles(mart_dir);
    for problem in &doubles {
        text.push_str(&format!("{problem}\n"));
    }
    let has_records = || Records::open(dir).is_ok_and(|(records, _)| records.fold().is_some());
    let is_recorded = project.uses_package() || has_records();
    if !is_recorded {
        text.push_str(NO_PACKAGE);
    }
    text.push_str(&match served.len() {
        0 => NO_MART.to_owned(),
        1 => "1 model would be served\n".to_owned(),
        more => format!("{more} models would be served\n"),
    });
    print(&text);
    Ok(match is_recorded && !served.is_empty() && doubles.is_empty() {
        true if warns => EXIT_WARN.into(),
        true => ExitCode::SUCCESS,
        false => EXIT_NO.into(),
    })
}
