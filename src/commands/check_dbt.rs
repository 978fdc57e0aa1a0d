//! `martd check --dbt-target`: which models of a dbt project would be marts, and what it lacks to be
//! published as whole builds. Nothing is run and no file is read but dbt's manifest.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use super::publish::Project;
use super::records::Records;
use super::table::{Cell, TextTable, Tone, colours};
use super::{EXIT_NO, complain, print};

const NO_PACKAGE: &str = "the project does not use the dbt package `martd`, so its files are not published as \
                          whole builds: `martd init --dbt DIR` prints the lines to add. Or run `martd publish \
                          --dbt-target DIR` after each dbt build\n";
const NO_MART: &str = "no model would be served: make the marts external, or give them the post-hook \
                       {{ martd.export() }}; `martd init --dbt DIR` prints the lines to add\n";

pub(super) fn run(target: &Path, mart_dir: &Path) -> ExitCode {
    let project = match Project::read(target) {
        Ok(project) => project,
        Err(problem) => {
            return complain(&format!("{problem}; `dbt parse` writes it"), EXIT_NO);
        }
    };
    let mut table =
        TextTable::new([("model", false), ("is", false), ("served as", false), ("", false)]);
    let mut writers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for output in project.outputs(mart_dir) {
        let (mart, tone, reason) = match output.mart {
            Ok(name) => {
                let mart = format!("mart.{name}");
                writers.entry(name).or_default().push(output.id.clone());
                (mart, Tone::Good, String::new())
            }
            Err(reason) => ("-".to_owned(), Tone::Warn, reason),
        };
        table.row(vec![
            output.id.into(),
            output.materialized.into(),
            Cell::new(mart, tone),
            reason.into(),
        ]);
    }
    let mut text = table.render(colours());
    let twice = || writers.iter().filter(|(_, models)| models.len() > 1);
    for (name, models) in twice() {
        let models = models.join(" and ");
        text.push_str(&format!(
            "{models} both write mart.{name}: give one another alias or location\n"
        ));
    }
    let is_recorded = project.uses_package()
        || Records::read(mart_dir).is_ok_and(|records| records.fold().is_some());
    if !is_recorded {
        text.push_str(NO_PACKAGE);
    }
    text.push_str(&match writers.len() {
        0 => NO_MART.to_owned(),
        1 => "1 model would be served\n".to_owned(),
        more => format!("{more} models would be served\n"),
    });
    print(&text);
    let good = is_recorded && !writers.is_empty() && twice().next().is_none();
    if good { ExitCode::SUCCESS } else { EXIT_NO.into() }
}
