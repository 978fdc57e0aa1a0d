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
use serde_json::{Map, Value as Json, json};

use super::{Claim, Plan, Unserved};
use crate::ledger::{Build, Column, EMPTY, Model, NodeResult, Status};
use crate::scan::{CLOCK_TICK, EXTENSION, OpenDir, file_name};

/// Commands that build or test. The others write result files, too, which say nothing of the data.
const COMMANDS: [&str; 6] = ["build", "run", "test", "seed", "snapshot", "retry"];
/// The options with which DuckDB's COPY writes a directory.
const FOLDER_OPTIONS: [&str; 3] = ["partition_by", "per_thread_output", "file_size_bytes"];
/// The post-hook of the dbt package, as models call it.
const EXPORT: &str = "martd.export(";
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

/// A project as dbt has parsed it.
pub(in crate::commands) struct Project {
    manifest: Manifest,
    /// What relative locations are relative to.
    dir: PathBuf,
}

/// What a node of a project writes.
pub(in crate::commands) struct Output {
    pub(in crate::commands) id: String,
    pub(in crate::commands) materialized: String,
    /// The mart that it would be, or why it would be none.
    pub(in crate::commands) mart: Result<String, String>,
    /// What its options will bring about.
    pub(in crate::commands) warning: Option<String>,
    /// Whether it is written as a mart, and not by a hook that may be another's.
    is_meant: bool,
}

/// A run, and the project that it was of.
pub(super) struct Artifacts {
    run: RunResults,
    project: Project,
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
        Ok(Self { run, project: Project::read(target)? })
    }

    /// What there is to record. With `untested`, no test need have run.
    ///
    /// # Errors
    /// When two models write one file.
    pub(super) fn plan(
        &self,
        mart_dir: &Path,
        open: &OpenDir,
        untested: bool,
    ) -> Result<Plan, String> {
        let RunMetadata { generated_at: finished_at, invocation_id, dbt_version, .. } =
            &self.run.metadata;
        let started_at = self.started_at();
        let mut plan = Plan::new(Build {
            id: invocation_id.clone(),
            started_at,
            finished_at: *finished_at,
            writer: Some(format!("dbt {dbt_version}")),
            project: self.project.manifest.metadata.project_name.clone(),
            status: Status::Success,
        });
        let Manifest { nodes, unit_tests, .. } = &self.project.manifest;
        plan.nodes = Some(nodes.keys().chain(unit_tests.keys()).cloned().collect::<BTreeSet<_>>());
        plan.results = self.run.results.iter().filter_map(|result| self.result(result)).collect();
        let untested = untested || self.var("martd_untested") == Some("publish");
        let ran: BTreeMap<&str, &RunResult> =
            self.run.results.iter().map(|result| (&*result.unique_id, result)).collect();
        if let Some(problem) = self.project.doubles(mart_dir).pop() {
            return Err(problem);
        }
        for (id, node) in nodes {
            let path = match self.project.file(node, mart_dir) {
                Some(Ok(path)) => path,
                Some(Err(reason)) => {
                    plan.unserved.push(Unserved { id: id.clone(), reason });
                    continue;
                }
                None => continue,
            };
            let name = mart_name(&path);
            let modified = modified(open, name, node.is_folder());
            let result = plan.results.iter().find(|result| result.id == *id);
            let window = match ran.get(id.as_str()) {
                Some(run) if result.is_some_and(NodeResult::has_passed) => {
                    let (from, to) = run.window().unwrap_or((started_at, *finished_at));
                    (from.checked_sub(CLOCK_TICK).unwrap_or(from), to)
                }
                Some(_) => continue,
                None => {
                    if modified.is_some_and(|at| (started_at..=*finished_at).contains(&at)) {
                        let file = file_name(name, node.is_folder());
                        let reason =
                            format!("{file} was written during this run, which does not name it");
                        plan.results.push(failed(id, reason));
                    }
                    continue;
                }
            };
            // A table is no mart unless something exports it.
            if !node.is_external() && modified.is_none_or(|at| at < window.0) {
                continue;
            }
            let tests = if untested { Vec::new() } else { self.tests(id) };
            let (model, window) = (node.model(id, name, tests), Some(window));
            plan.claims.push(Claim { model, window, keeps_parts: node.option("append") });
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
        let node = self.project.manifest.nodes.get(unique_id);
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
        let tests = self.project.manifest.nodes.iter().filter(|(_, node)| {
            node.resource_type == "test"
                && !node.only_warns()
                && node.depends_on.nodes.iter().any(|id| id == model)
        });
        tests.map(|(id, _)| id.clone()).collect()
    }
}

impl Project {
    /// Reads what dbt has left in its target directory.
    ///
    /// # Errors
    /// When it is missing or does not parse.
    pub(in crate::commands) fn read(target: &Path) -> Result<Self, String> {
        let parent = target.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
        Ok(Self { manifest: load(&target.join("manifest.json"))?, dir: parent.unwrap_or_default() })
    }

    /// Whether the hooks of the dbt package run in it.
    pub(in crate::commands) fn uses_package(&self) -> bool {
        self.manifest.nodes.keys().any(|id| id.starts_with("operation.martd."))
    }

    /// What its nodes write, but for views and what is a part of others.
    pub(in crate::commands) fn outputs(&self, mart_dir: &Path) -> impl Iterator<Item = Output> {
        self.manifest.nodes.iter().filter(|(_, node)| node.has_rows() || node.is_exported()).map(
            |(id, node)| Output {
                id: id.clone(),
                materialized: node.materialized().to_owned(),
                mart: self.mart(node, mart_dir),
                warning: node.warning(),
                is_meant: node.is_external() || node.is_exported(),
            },
        )
    }

    /// What is wrong with models that write one mart: dbt is content, and the last one wins.
    pub(in crate::commands) fn doubles(&self, mart_dir: &Path) -> Vec<String> {
        let mut writers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for output in self.outputs(mart_dir).filter(|output| output.is_meant) {
            // Names that differ in case alone are one.
            let name = output.mart.map(|name| name.to_ascii_lowercase());
            name.into_iter()
                .for_each(|name| writers.entry(name).or_default().push(output.id.clone()));
        }
        let doubles = writers.into_iter().filter(|(_, models)| models.len() > 1);
        let said = |(name, models): (String, Vec<String>)| {
            let models = models.join(" and ");
            format!("{models} both write mart.{name}: give one of them another alias or location")
        };
        doubles.map(said).collect()
    }

    fn mart(&self, node: &Node, mart_dir: &Path) -> Result<String, String> {
        let path = if node.is_exported() {
            self.written(node, mart_dir)?
        } else {
            let stays = format!(
                "stays in the database; make it external, or add the post-hook {{{{ {EXPORT}) }}}}"
            );
            self.file(node, mart_dir).ok_or(stays)??
        };
        let name = mart_name(&path);
        if ["_", ".", "tmp_"].iter().any(|start| name.starts_with(start)) {
            return Err(format!("{name} starts with `_`, `.` or `tmp_`; give it an alias"));
        }
        Ok(name.to_owned())
    }

    /// The file or directory that a node writes where martd serves it, or why martd does not serve what it writes.
    /// `None` when it writes none.
    fn file(&self, node: &Node, mart_dir: &Path) -> Option<Result<PathBuf, String>> {
        if node.is_external() {
            return Some(self.written(node, mart_dir));
        }
        // Whatever hook has written it.
        let usual = mart_dir.join(file_name(&node.alias, node.is_folder()));
        (node.has_rows() && usual.exists()).then_some(Ok(usual))
    }

    fn written(&self, node: &Node, mart_dir: &Path) -> Result<PathBuf, String> {
        let options = node.config.get("options").and_then(|options| options.get("format"));
        let format = options.or_else(|| node.config.get("format")).and_then(Json::as_str);
        let format = format.unwrap_or("parquet");
        let is_folder = node.is_folder();
        let path = match node.config.get("location").and_then(Json::as_str) {
            Some(location) if location.contains("://") => {
                return Err(format!("its location is {location}, which is no local file"));
            }
            Some(location) => self.dir.join(location),
            None => mart_dir.join(file_name(&node.alias, is_folder)),
        };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let is_parquet = path.extension().is_some_and(|end| end == "parquet");
        if format != "parquet" || !is_folder && !is_parquet && path.extension().is_some() {
            Err(format!("{} is not Parquet; set format to parquet", path.display()))
        } else if is_folder == is_parquet {
            let advice = if is_folder { "must not end" } else { "has to end" };
            Err(format!("{}: its name {advice} in .parquet to be served", path.display()))
        } else if path.parent().map(real) != Some(real(mart_dir)) {
            Err(format!("{} lies outside of {}", path.display(), mart_dir.display()))
        } else {
            Ok(path)
        }
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

    /// Whether it is more than a test, a view or a part of others.
    fn has_rows(&self) -> bool {
        ["model", "seed", "snapshot"].contains(&&*self.resource_type)
            && !["view", "ephemeral"].contains(&self.materialized())
    }

    /// Whether the dbt package writes its file, whatever else it is.
    fn is_exported(&self) -> bool {
        let hooks = self.config.get("post-hook").and_then(Json::as_array);
        let mut sql = hooks.into_iter().flatten().filter_map(|hook| hook["sql"].as_str());
        self.materialized() != "ephemeral" && sql.any(|sql| sql.contains(EXPORT))
    }

    /// Whether it writes a directory of parts.
    fn is_folder(&self) -> bool {
        FOLDER_OPTIONS.into_iter().any(|key| self.option(key))
    }

    /// Whether an option for DuckDB's COPY is set.
    fn option(&self, key: &str) -> bool {
        let option = self.config.get("options").and_then(|options| options.get(key));
        // They go to DuckDB as they are: the text false is false, too.
        option.is_some_and(|said| !said.is_null() && ![json!(false), json!("false")].contains(said))
    }

    /// What will go wrong when it is built again.
    fn warning(&self) -> Option<String> {
        let has = |key: &str| self.option(key);
        let key = FOLDER_OPTIONS.into_iter().find(|key| has(key))?;
        if has("overwrite") || has("append") {
            return None;
        }
        let what = match has("overwrite_or_ignore") {
            true => "with overwrite_or_ignore leaves old parts, and a run that does is held",
            false => "without overwrite or append fails when its folder is there",
        };
        Some(format!("{key} {what}: set overwrite: true"))
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

/// The mart that is made of a file or directory.
fn mart_name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(EXTENSION).unwrap_or(name)
}

/// What is recorded of a node that failed.
pub(super) fn failed(id: &str, message: String) -> NodeResult {
    let (id, status) = (id.to_owned(), "error".to_owned());
    NodeResult { id, status, message: Some(message), since: None }
}

/// When a mart was last written.
fn modified(dir: &OpenDir, name: &str, is_folder: bool) -> Option<Timestamp> {
    if !is_folder {
        return Some(dir.identity(&file_name(name, false))?.modified());
    }
    let parts = dir.parts(name, |_| {}).ok()??.files;
    parts.iter().map(|part| part.identity.modified()).max()
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("{} is not what dbt 1.8 to 2 write: {error}", path.display()))
}
