//! Writes marts as real writers do: DuckDB's COPY into a temporary name, a rename, a ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use duckdb::Connection;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root};

/// A DuckDB that writes Parquet files.
pub struct Writer {
    duckdb: Connection,
    scratch: tempfile::TempDir,
}

impl Writer {
    pub fn new() -> Self {
        let duckdb = Connection::open_in_memory().expect("DuckDB opens");
        duckdb.execute_batch("SET threads = 1").expect("set");
        Self { duckdb, scratch: tempfile::tempdir().expect("a temporary directory") }
    }

    /// The bytes of a Parquet file with these rows, and a build's stamp if there is one.
    pub fn parquet(&self, select: &str, invocation: Option<&str>) -> Vec<u8> {
        self.bytes(select, &stamp(invocation))
    }

    /// The bytes of a Parquet file that COPY writes with these options.
    pub fn bytes(&self, select: &str, options: &str) -> Vec<u8> {
        let path = self.scratch.path().join("x.parquet");
        self.copy(select, &path, options);
        std::fs::read(&path).expect("read")
    }

    /// Writes a Parquet file with COPY and these options.
    pub fn copy(&self, select: &str, path: &Path, options: &str) {
        let comma = if options.is_empty() { "" } else { ", " };
        let path = path.display().to_string().replace('\'', "''");
        let sql = format!("COPY ({select}) TO '{path}' (FORMAT parquet{comma}{options})");
        self.duckdb.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Puts a mart in place in one step.
    pub fn land(&self, root: &Root, name: &str, select: &str) {
        self.land_stamped(root, name, select, None);
    }

    /// The same, stamped with the build that writes it.
    pub fn land_stamped(&self, root: &Root, name: &str, select: &str, invocation: Option<&str>) {
        let temporary = root.mart(&format!("tmp_{name}.parquet"));
        self.copy(select, &temporary, &stamp(invocation));
        std::fs::rename(&temporary, root.mart(&format!("{name}.parquet"))).expect("rename");
    }
}

/// COPY's option that stamps a file with the build that writes it.
pub fn stamp(invocation: Option<&str>) -> String {
    invocation.map(|id| format!("KV_METADATA {{dbt_invocation_id: '{id}'}}")).unwrap_or_default()
}

/// A martd that serves one mart.
pub fn serving(name: &str, select: &str, settings: &[(&str, &str)]) -> (Root, Martd) {
    let root = Root::new();
    Writer::new().land(&root, name, select);
    let martd = Martd::start_with(root.path(), settings);
    martd.wait_ready();
    (root, martd)
}

/// Replaces a file in one step.
pub fn put(path: PathBuf, bytes: &[u8]) {
    let temporary = path.with_file_name(format!(
        "tmp_{}",
        path.file_name().expect("a name").to_str().expect("UTF-8")
    ));
    std::fs::write(&temporary, bytes).expect("write");
    std::fs::rename(&temporary, &path).expect("rename");
}

/// A dbt project in miniature: models with the invocation that last built them, and what is
/// outstanding. Writes the ledger as dbt's on-run-end hook does.
#[derive(Default, Clone)]
pub struct Project {
    pub models: Vec<(String, String)>,
    pub outstanding: Vec<Json>,
    /// The `meta` of models that have one.
    pub meta: BTreeMap<String, Json>,
}

impl Project {
    /// Notes that a build wrote this model.
    pub fn built(&mut self, name: &str, invocation: &str) {
        self.models.retain(|(known, _)| known != name);
        self.models.push((name.to_owned(), invocation.to_owned()));
    }

    /// Notes that a node failed.
    pub fn failed(&mut self, unique_id: &str) {
        self.outstanding.push(json!({
            "unique_id": unique_id, "message": "Got 3 results, configured to fail if != 0",
            "since": Timestamp::now(),
        }));
    }

    pub fn write_ledger(&self, root: &Root, invocation: &str) {
        put(root.mart("_build.json"), self.ledger(invocation).as_bytes());
    }

    /// The ledger's text.
    pub fn ledger(&self, invocation: &str) -> String {
        let now = Timestamp::now();
        let status = if self.outstanding.is_empty() { "success" } else { "error" };
        let models: Vec<Json> = self
            .models
            .iter()
            .map(|(name, invocation)| {
                json!({
                    "name": name, "schema": "mart", "description": "",
                    "invocation_id": invocation, "columns": [],
                    "meta": self.meta.get(name).cloned().unwrap_or_else(|| json!({})),
                })
            })
            .collect();
        let ledger = json!({"build": {
            "invocation_id": invocation, "started_at": now, "finished_at": now, "status": status,
            "results": [], "outstanding": self.outstanding, "models": models,
        }});
        ledger.to_string()
    }
}

/// Records of builds, as a writer without dbt leaves them.
#[derive(Default)]
pub struct Records {
    /// The tests of marts that have some.
    pub tests: BTreeMap<String, Vec<String>>,
}

impl Records {
    /// Writes a record of a build of these marts as they are on disk. `rest` is what else it says.
    pub fn write(&self, root: &Root, build: &str, marts: &[&str], rest: Json) {
        let text = self.text(root, build, marts, rest);
        std::fs::create_dir_all(root.mart("_builds")).expect("mkdir");
        put(root.mart(&format!("_builds/{build}.json")), text.as_bytes());
    }

    /// Its text.
    pub fn text(&self, root: &Root, build: &str, marts: &[&str], rest: Json) -> String {
        let now = Timestamp::now();
        let mut record = json!({
            "version": 2, "marts": self.of_files(root, marts),
            "build": {"id": build, "started_at": now, "finished_at": now, "status": "success"},
        });
        for (key, value) in rest.as_object().expect("an object") {
            match key.as_str() {
                "project" => record["build"]["project"] = value.clone(),
                _ => record[key] = value.clone(),
            }
        }
        record.to_string()
    }

    /// What a record says of these marts as they are on disk.
    pub fn of_files(&self, root: &Root, marts: &[&str]) -> Json {
        let mart = |name: &&str| {
            let parts = parts(root, name);
            let paths = if parts.is_empty() { vec![format!("{name}.parquet")] } else { parts };
            let files: Vec<Json> = paths.iter().map(|path| of_file(root, path)).collect();
            json!({"name": name, "files": files, "tests": self.tests.get(*name).cloned().unwrap_or_default()})
        };
        marts.iter().map(mart).collect()
    }
}

/// What a record says of a file as it is on disk.
pub fn of_file(root: &Root, path: &str) -> Json {
    let bytes = std::fs::read(root.mart(path)).expect("a file");
    let mut hasher = martd::digest::Hasher::default();
    hasher.update(&bytes);
    json!({"path": path, "bytes": bytes.len(), "sha256": hasher.finish()})
}

/// The Parquet files below a directory of the mart directory.
pub fn parts(root: &Root, path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(root.mart(path)).into_iter().flatten().flatten() {
        let path = format!("{path}/{}", entry.file_name().to_str().expect("UTF-8"));
        match entry.path().is_dir() {
            true => parts.extend(self::parts(root, &path)),
            false if path.ends_with(".parquet") => parts.push(path),
            false => {}
        }
    }
    parts
}
