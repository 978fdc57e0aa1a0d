//! What dbt says of a run: `run_results.json` and `manifest.json` of its target directory.
//!
//! Read as dbt-core 1.8 to 1.12 write them, and leniently: keys of other versions are not missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::{Claim, Plan, Unserved};
use crate::ledger::{Build, Column, EMPTY, Model, NodeResult, Status};
use crate::scan::CLOCK_TICK;

/// Commands that build or test. The others write result files, too, which say nothing of the data.
const COMMANDS: [&str; 6] = ["build", "run", "test", "seed", "snapshot", "retry"];
/// dbt's messages can hold a whole statement.
const LONGEST_MESSAGE: usize = 2_000;

#[derive(Deserialize)]
struct RunResults {
    metadata: RunMetadata,
    results: Vec<RunResult>,
    #[serde(default)]
    elapsed_time: f64,
    #[serde(default)]
    args: Map<String, Json>,
}

#[derive(Deserialize)]
struct RunMetadata {
    dbt_version: String,
    generated_at: Timestamp,
    invocation_id: String,
    invocation_started_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct RunResult {
    unique_id: String,
    status: String,
    message: Option<String>,
    #[serde(default)]
    timing: Vec<Timing>,
}

#[derive(Deserialize)]
struct Timing {
    name: String,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Manifest {
    metadata: ManifestMetadata,
    nodes: BTreeMap<String, Node>,
    #[serde(default)]
    unit_tests: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
struct ManifestMetadata {
    project_name: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    resource_type: String,
    #[serde(default)]
    alias: String,
    schema: Option<String>,
    description: Option<String>,
    #[serde(default)]
    config: Map<String, Json>,
    #[serde(default)]
    meta: Map<String, Json>,
    #[serde(default)]
    columns: BTreeMap<String, Column>,
    #[serde(default)]
    depends_on: DependsOn,
}

#[derive(Default, Deserialize)]
struct DependsOn {
    #[serde(default)]
    nodes: Vec<String>,
}

/// A run, and the project that it was of.
pub(super) struct Artifacts {
    run: RunResults,
    manifest: Manifest,
    /// What relative locations are relative to.
    project_dir: PathBuf,
}

impl Artifacts {
    /// Reads dbt's target directory.
    ///
    /// # Errors
    /// When something is missing, does not parse, or is of a command that neither built nor tested.
    pub(super) fn read(target: &Path) -> Result<Self, String> {
        let run: RunResults = load(&target.join("run_results.json"))?;
        let which = run.args.get("which").and_then(Json::as_str).unwrap_or("an unknown command");
        if !COMMANDS.contains(&which) {
            return Err(format!(
                "run_results.json is of dbt {which}, which neither built nor tested; publish right after \
                 dbt build, before another command writes there"
            ));
        }
        if run.results.is_empty() {
            return Err("run_results.json names no node, so nothing is vouched for".to_owned());
        }
        let parent = target.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
        let project_dir = parent.unwrap_or_default();
        Ok(Self { run, manifest: load(&target.join("manifest.json"))?, project_dir })
    }

    /// What there is to record. With `untested`, no test need have run.
    ///
    /// # Errors
    /// When two models write one file.
    pub(super) fn plan(&self, mart_dir: &Path, untested: bool) -> Result<Plan, String> {
        let RunMetadata { generated_at: finished_at, invocation_id, dbt_version, .. } =
            &self.run.metadata;
        let started_at = self.started_at();
        let mut plan = Plan::new(Build {
            id: invocation_id.clone(),
            started_at,
            finished_at: *finished_at,
            writer: Some(format!("dbt {dbt_version}")),
            project: self.manifest.metadata.project_name.clone(),
            status: Status::Success,
        });
        let Manifest { nodes, unit_tests, .. } = &self.manifest;
        plan.nodes = Some(nodes.keys().chain(unit_tests.keys()).cloned().collect::<BTreeSet<_>>());
        plan.results = self.run.results.iter().filter_map(|result| self.result(result)).collect();
        let untested = untested || self.var("martd_untested") == Some("publish");
        let ran: BTreeMap<&str, &RunResult> =
            self.run.results.iter().map(|result| (&*result.unique_id, result)).collect();
        let mut paths: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for (id, node) in nodes {
            let path = match self.file(node, mart_dir) {
                Some(Ok(path)) => path,
                Some(Err(reason)) => {
                    plan.unserved.push(Unserved { id: id.clone(), reason });
                    continue;
                }
                None => continue,
            };
            let other = node.is_external().then(|| paths.insert(path.clone(), id)).flatten();
            if let Some(other) = other {
                let path = path.display();
                return Err(format!(
                    "{other} and {id} both write {path}; give one another location"
                ));
            }
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let result = plan.results.iter().find(|result| result.id == *id);
            let window = match ran.get(id.as_str()) {
                Some(run) if result.is_some_and(NodeResult::has_passed) => {
                    let (from, to) = run.window().unwrap_or((started_at, *finished_at));
                    (from.checked_sub(CLOCK_TICK).unwrap_or(from), to)
                }
                Some(_) => continue,
                None => {
                    if modified(&path).is_some_and(|at| (started_at..=*finished_at).contains(&at)) {
                        let reason = format!(
                            "{name}.parquet was written during this run, which does not name it"
                        );
                        plan.results.push(failed(id, reason));
                    }
                    continue;
                }
            };
            // A table is no mart unless something exports it.
            if !node.is_external() && modified(&path).is_none_or(|at| at < window.0) {
                continue;
            }
            let tests = if untested { Vec::new() } else { self.tests(id) };
            plan.claims.push(Claim { model: node.model(id, name, tests), window: Some(window) });
        }
        Ok(plan)
    }

    fn started_at(&self) -> Timestamp {
        let RunMetadata { generated_at, invocation_started_at, .. } = &self.run.metadata;
        let elapsed = Duration::try_from_secs_f64(self.run.elapsed_time).unwrap_or_default();
        let began = generated_at.checked_sub(elapsed).unwrap_or(*generated_at);
        let timings = self.run.results.iter().filter_map(|result| result.window());
        invocation_started_at
            .iter()
            .copied()
            .chain([began])
            .chain(timings.map(|(from, _)| from))
            .min()
            .unwrap_or(began)
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.run.args.get("vars")?.get(name)?.as_str()
    }

    /// Whether the run was over no rows, or some.
    fn is_hollow(&self) -> bool {
        let is_set = |key: &str| {
            self.run.args.get(key).is_some_and(|said| !said.is_null() && *said != Json::Bool(false))
        };
        is_set("empty") || is_set("sample")
    }

    /// What is recorded of a node, unless nothing can hang on it.
    fn result(&self, result: &RunResult) -> Option<NodeResult> {
        let RunResult { unique_id, status, message, .. } = result;
        let kind = unique_id.split('.').next().unwrap_or_default();
        let node = self.manifest.nodes.get(unique_id);
        let counts =
            ["model", "test", "seed", "snapshot", "unit_test", "operation"].contains(&kind);
        if !counts || node.is_some_and(|node| node.materialized() == "ephemeral") {
            return None;
        }
        let (id, status) = (unique_id.clone(), status.clone());
        let mut recorded = NodeResult { id, status, message: None, since: None };
        if kind == "test" && node.is_some_and(Node::only_warns) {
            "warn".clone_into(&mut recorded.status);
        } else if recorded.has_passed() && self.is_hollow() {
            EMPTY.clone_into(&mut recorded.status);
            recorded.message = Some("ran with --empty or --sample".to_owned());
        } else if !recorded.has_passed() {
            let short = |text: &String| text.trim().chars().take(LONGEST_MESSAGE).collect();
            recorded.message = message.as_ref().map(short);
        }
        Some(recorded)
    }

    /// The tests that can hold a model.
    fn tests(&self, model: &str) -> Vec<String> {
        let tests = self.manifest.nodes.iter().filter(|(_, node)| {
            node.resource_type == "test"
                && !node.only_warns()
                && node.depends_on.nodes.iter().any(|id| id == model)
        });
        tests.map(|(id, _)| id.clone()).collect()
    }

    /// The file that a node writes where martd serves it, or why martd does not serve what it writes.
    /// `None` when it writes no file.
    fn file(&self, node: &Node, mart_dir: &Path) -> Option<Result<PathBuf, String>> {
        let usual = mart_dir.join(format!("{}.parquet", node.alias));
        if !node.is_external() {
            let may_export = ["model", "seed", "snapshot"].contains(&&*node.resource_type)
                && !["view", "ephemeral"].contains(&node.materialized());
            return (may_export && usual.is_file()).then_some(Ok(usual));
        }
        let location = node.config.get("location").and_then(Json::as_str);
        let format = node.config.get("format").and_then(Json::as_str).unwrap_or("parquet");
        let path = match location {
            Some(location) if location.contains("://") => {
                return Some(Err(format!("its location is {location}, which is no local file")));
            }
            Some(location) => self.project_dir.join(location),
            None => usual,
        };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Some(if format != "parquet" || path.extension().is_some_and(|end| end != "parquet") {
            Err(format!("{} is not Parquet; set format to parquet", path.display()))
        } else if path.is_dir() || node.config.get("partition_by").is_some_and(|by| !by.is_null()) {
            Err(format!(
                "{} is a directory of parts, which martd does not serve yet",
                path.display()
            ))
        } else if path.parent().map(real) != Some(real(mart_dir)) {
            Err(format!("{} lies outside of {}", path.display(), mart_dir.display()))
        } else {
            Ok(path)
        })
    }
}

impl RunResult {
    /// When it executed.
    fn window(&self) -> Option<(Timestamp, Timestamp)> {
        let timing = self.timing.iter().find(|timing| timing.name == "execute")?;
        Some((timing.started_at?, timing.completed_at?))
    }
}

impl Node {
    fn materialized(&self) -> &str {
        self.config.get("materialized").and_then(Json::as_str).unwrap_or_default()
    }

    fn is_external(&self) -> bool {
        self.materialized() == "external"
    }

    fn only_warns(&self) -> bool {
        let severity = self.config.get("severity").and_then(Json::as_str);
        severity.is_some_and(|severity| severity.eq_ignore_ascii_case("warn"))
    }

    fn model(&self, id: &str, name: &str, tests: Vec<String>) -> Model {
        let meta =
            self.config.get("meta").and_then(Json::as_object).filter(|meta| !meta.is_empty());
        Model {
            unique_id: Some(id.to_owned()),
            schema: self.schema.clone(),
            description: self.description.clone().filter(|text| !text.is_empty()),
            meta: meta.unwrap_or(&self.meta).clone(),
            columns: self.columns.values().cloned().collect(),
            tests,
            ..Model::named(name.to_owned())
        }
    }
}

/// What is recorded of a node that failed.
pub(super) fn failed(id: &str, message: String) -> NodeResult {
    let (id, status) = (id.to_owned(), "error".to_owned());
    NodeResult { id, status, message: Some(message), since: None }
}

fn modified(path: &Path) -> Option<Timestamp> {
    let time = fs::metadata(path).and_then(|found| found.modified()).ok()?;
    Timestamp::try_from(time).ok()
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("{} is not what dbt 1.8 to 2 write: {error}", path.display()))
}
