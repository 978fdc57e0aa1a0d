//! From records to what is so now, and from many records to few.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::record::{Build, Model, NodeResult, Record, SKIPPED, UNTESTED};
use super::{CONFLICT, Ledger, Outstanding, Rollback};

/// Earlier builds of one record that are still known by their ids.
pub(crate) const REMEMBERED: usize = 256;

/// What has become of one project.
#[derive(Debug, Default)]
struct Project<'r> {
    marts: BTreeMap<&'r str, &'r Model>,
    /// Marts whose nodes the project has no more.
    left: BTreeMap<&'r str, &'r Model>,
    outstanding: BTreeMap<&'r str, Outstanding>,
}

/// What all records come to, in whatever order they are given; `None` without one of a build.
pub fn fold<'r>(records: impl IntoIterator<Item = &'r Record>) -> Option<Ledger> {
    let records = in_order(records);
    let mut ledger = state(&records)?;
    let heads = heads(&records);
    let mut rollback = rollback(&records).map(|(build, at, end)| {
        let ledger = end.and_then(|end| state(&records[..=end]));
        (build.to_owned(), at, ledger)
    });
    let earlier = rollback.iter_mut().filter_map(|(_, _, ledger)| ledger.as_mut());
    for ledger in earlier.chain([&mut ledger]) {
        ledger.heads.clone_from(&heads);
        let builds: HashSet<&String> = ledger.builds.iter().collect();
        ledger.beside = ids(&records).filter(|id| !builds.contains(id)).cloned().collect();
    }
    ledger.rollback =
        rollback.map(|(build, at, ledger)| Rollback { build, at, ledger: ledger.map(Arc::new) });
    Some(ledger)
}

/// The newest build of each project, and the last record if it is of none.
fn heads(records: &[&Record]) -> Vec<String> {
    let of_builds = records.iter().filter(|record| record.is_of_a_build());
    let newest: BTreeMap<_, _> = of_builds
        .map(|record| (record.build.project.as_deref(), record.ids().next_back()))
        .collect();
    let last = records.last().filter(|record| !record.is_of_a_build());
    newest.into_values().flatten().chain(last.map(|record| &record.build.id)).cloned().collect()
}

/// All that records are of, and stand for, the newest last.
fn ids<'r>(records: &[&'r Record]) -> impl Iterator<Item = &'r String> {
    records.iter().flat_map(|record| record.ids())
}

/// The build that the last rollback asks for, unless it is released, since when, and the index of its record.
fn rollback<'r>(records: &[&'r Record]) -> Option<(&'r str, Timestamp, Option<usize>)> {
    let last = records.iter().rposition(|record| !record.is_of_a_build())?;
    let build = records[last].rollback.as_deref()?;
    let is_it = |record: &&Record| record.is_of_a_build() && record.build.id == build;
    let at = records[last].build.finished_at;
    Some((build, at, records[..last].iter().position(is_it)))
}

/// The records that no other stands for, the oldest first.
fn in_order<'r>(records: impl IntoIterator<Item = &'r Record>) -> Vec<&'r Record> {
    let mut records: Vec<_> = records.into_iter().collect();
    let replaced: HashSet<&str> =
        records.iter().flat_map(|record| &record.replaces).map(String::as_str).collect();
    records.retain(|record| !replaced.contains(record.build.id.as_str()));
    records.sort_by_key(|record| record.build.order());
    records
}

fn projects<'r>(records: &[&'r Record]) -> BTreeMap<Option<&'r str>, Project<'r>> {
    let mut projects: BTreeMap<_, Project<'_>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.is_of_a_build()) {
        projects.entry(record.build.project.as_deref()).or_default().add(record);
    }
    projects
}

fn state(records: &[&Record]) -> Option<Ledger> {
    let Build { id, started_at, finished_at, status, .. } =
        &records.iter().rev().find(|record| record.is_of_a_build())?.build;
    let projects = projects(records);
    let mut models: BTreeMap<&str, (Option<&str>, &Model)> = BTreeMap::new();
    let mut outstanding = Vec::new();
    for (name, project) in &projects {
        let name = name.map(str::to_owned);
        let known = project.outstanding.values().cloned();
        outstanding.extend(known.map(|known| Outstanding { project: name.clone(), ..known }));
    }
    for (project, Project { marts, .. }) in &projects {
        for (name, model) in marts {
            if let Some((other, _)) = models.insert(name, (*project, model)) {
                outstanding.push(conflict(name, other, *project, *finished_at));
            }
        }
    }
    let left = projects.values().flat_map(|project| project.left.values());
    let left = left.filter(|model| !models.contains_key(model.name.as_str()));
    let left: BTreeMap<&str, &Model> = left.map(|model| (model.name.as_str(), *model)).collect();
    outstanding
        .sort_by(|a, b| (a.kind(), a.since, &a.unique_id).cmp(&(b.kind(), b.since, &b.unique_id)));
    let of_records = records.iter().filter(|record| record.is_of_content());
    Some(Ledger {
        invocation_id: id.clone(),
        started_at: *started_at,
        finished_at: *finished_at,
        status: *status,
        builds: builds(records),
        heads: Vec::new(),
        beside: Vec::new(),
        recorded_since: of_records.map(|record| record.build.started_at).min(),
        outstanding,
        models: models.into_values().map(|(_, model)| model.clone()).collect(),
        left: left.into_values().map(|mart| Model { left: false, ..mart.clone() }).collect(),
        rollback: None,
    })
}

fn builds(records: &[&Record]) -> Vec<String> {
    let of_builds: Vec<_> =
        records.iter().copied().filter(|record| record.is_of_a_build()).collect();
    ids(&of_builds).cloned().collect()
}

fn conflict(name: &str, one: Option<&str>, other: Option<&str>, since: Timestamp) -> Outstanding {
    let said = |project: Option<&str>| match project {
        Some(project) => format!("project {project}"),
        None => "a writer that names no project".to_owned(),
    };
    let message = format!("{} and {} both build it; rename one of the two", said(one), said(other));
    let (unique_id, status) = (format!("mart {name}"), CONFLICT.to_owned());
    Outstanding { unique_id, project: None, status, message: Some(message), since }
}

impl Record {
    /// What it is of and stands for. A compacted record is no build, and not newer than those it stands for; the
    /// first edition's is the newest of them.
    fn ids(&self) -> impl DoubleEndedIterator<Item = &String> {
        let own = Some(&self.build.id);
        let (before, after) = if self.is_of_content() { (own, None) } else { (None, own) };
        before.into_iter().chain(&self.replaces).chain(after)
    }

    /// Whether it vouches by content, as all but the first edition's do.
    fn is_of_content(&self) -> bool {
        self.is_of_a_build() && self.marts.iter().all(|mart| !mart.files.is_empty())
    }
}

impl<'r> Project<'r> {
    fn add(&mut self, record: &'r Record) {
        let Record { build, marts, results, nodes, .. } = record;
        if let Some(nodes) = nodes {
            self.outstanding.retain(|id, _| is_in_project(id, nodes, results));
        }
        let ran: HashSet<&str> = results.iter().map(|result| result.id.as_str()).collect();
        for mart in marts {
            match mart.left {
                true => drop(self.left.insert(&mart.name, mart)),
                false => self.build(mart, &ran, build.finished_at),
            }
        }
        for result in results {
            if result.has_passed() {
                self.outstanding.remove(result.id.as_str());
            } else {
                self.fail(&result.id, result, build.finished_at);
            }
        }
        if let Some(nodes) = nodes {
            self.leave(|mart| !nodes.contains(mart.node()));
        }
    }

    fn leave(&mut self, has_left: impl Fn(&Model) -> bool) {
        let (left, marts) =
            std::mem::take(&mut self.marts).into_iter().partition(|(_, mart)| has_left(mart));
        self.marts = marts;
        self.left.extend::<BTreeMap<_, _>>(left);
    }

    /// A mart is of this build from here on, and its tests say nothing of it any more.
    fn build(&mut self, mart: &'r Model, ran: &HashSet<&str>, at: Timestamp) {
        // A node that has another name now builds what it built under the old one no more.
        self.leave(|other| other.node() == mart.node() && other.name != mart.name);
        self.left.remove(mart.name.as_str());
        let before = self.marts.insert(&mart.name, mart);
        for test in before.iter().flat_map(|before| &before.tests) {
            let is_untested = |known: &Outstanding| known.status == UNTESTED;
            if !mart.tests.contains(test) && self.outstanding.get(&**test).is_some_and(is_untested)
            {
                self.outstanding.remove(&**test);
            }
        }
        for test in mart.tests.iter().filter(|test| !ran.contains(test.as_str())) {
            self.outstanding.entry(test).or_insert_with(|| Outstanding {
                unique_id: test.clone(),
                project: None,
                status: UNTESTED.to_owned(),
                message: Some(format!("has not run since mart {} was built", mart.name)),
                since: at,
            });
        }
    }

    fn fail(&mut self, id: &'r str, result: &NodeResult, at: Timestamp) {
        let since = self.outstanding.get(id).filter(|known| known.status != UNTESTED);
        let since = since.map(|known| known.since).or(result.since).unwrap_or(at);
        let default = || {
            (result.status == SKIPPED).then(|| "skipped, because another node failed".to_owned())
        };
        let (status, message) = (result.status.clone(), result.message.clone().or_else(default));
        let unique_id = id.to_owned();
        let known = Outstanding { unique_id, project: None, status, message, since };
        self.outstanding.insert(id, known);
    }

    /// What has to be known of it: as a record, but for its run.
    fn reduce(&self, build: Build) -> Record {
        let known = self.outstanding.values().map(|known| NodeResult {
            id: known.unique_id.clone(),
            status: known.status.clone(),
            message: known.message.clone(),
            since: Some(known.since),
        });
        let tests: BTreeSet<&String> = self.marts.values().flat_map(|mart| &mart.tests).collect();
        let passed = tests.into_iter().filter(|test| !self.outstanding.contains_key(test.as_str()));
        let passed = passed.map(|test| NodeResult {
            id: test.clone(),
            status: "pass".to_owned(),
            message: None,
            since: None,
        });
        let mut record = Record::new(build);
        record.results = known.chain(passed).collect();
        let left = self.left.values().map(|mart| Model { left: true, ..(*mart).clone() });
        record.marts = self.marts.values().map(|mart| (*mart).clone()).chain(left).collect();
        record
    }
}

/// Whether a node that was outstanding still counts. Hooks run each time: one that did not fail now has
/// succeeded. Unit tests are in no list of dbt's nodes; each guards the model in its name, until that is
/// built again.
fn is_in_project(id: &str, nodes: &BTreeSet<String>, results: &[NodeResult]) -> bool {
    let mut parts = id.split('.');
    if let (Some("unit_test"), Some(package), Some(model)) =
        (parts.next(), parts.next(), parts.next())
    {
        let model = format!("model.{package}.{model}");
        let is_built = |result: &NodeResult| result.id == model && result.has_passed();
        return nodes.contains(&model) && !results.iter().any(is_built);
    }
    nodes.contains(id)
}

/// Where the records of the newest builds begin.
fn newest_builds(records: &[&Record], count: usize) -> usize {
    let builds = records.iter().enumerate().filter(|(_, record)| record.is_of_a_build());
    builds.rev().nth(count - 1).map_or(0, |(index, _)| index)
}

/// Records that can stand for others.
#[derive(Debug, PartialEq)]
pub struct Compaction {
    /// To be written first.
    pub write: Vec<Record>,
    /// The ids of those that are not needed then.
    pub remove: Vec<String>,
}

/// Folds all records before the newest `keep` builds into one for each project, whose ids begin with `id`. What
/// they come to stays the same, and so does what a rollback asks for. `None` when that saves nothing.
pub fn compact<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    keep: usize,
    id: &str,
) -> Option<Compaction> {
    let records = in_order(records);
    let mut end = newest_builds(&records, keep.max(1));
    if let Some((.., index)) = rollback(&records) {
        end = end.min(index?);
    }
    // Of records of one moment, none may come to stand before another.
    let moment = |at: usize| records.get(at).map(|record| record.build.finished_at);
    while end > 0 && moment(end - 1) == moment(end) {
        end -= 1;
    }
    let old = &records[..end];
    let projects = projects(old);
    if old.len() <= projects.len() {
        return None;
    }
    let of_builds = old.iter().filter(|record| record.is_of_a_build());
    let started_at = of_builds.map(|record| record.build.started_at).min()?;
    let write = projects.iter().enumerate().filter_map(|(number, (name, project))| {
        let is_own =
            |record: &&Record| record.is_of_a_build() && record.build.project.as_deref() == *name;
        let own: Vec<_> = old.iter().copied().filter(is_own).collect();
        let id = format!("{id}-{number}");
        let mut record = project.reduce(Build { id, started_at, ..own.last()?.build.clone() });
        let known: Vec<String> = ids(&own).cloned().collect();
        let first = known.len().saturating_sub(REMEMBERED.max(own.len()));
        record.replaces = known[first..].to_vec();
        Some(record)
    });
    let remove = old.iter().map(|record| record.build.id.clone()).collect();
    Some(Compaction { write: write.collect(), remove })
}
