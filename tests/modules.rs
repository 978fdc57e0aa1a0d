//! The crate's modules know each other in one direction: computed from what the sources name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What each module names of the others.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The module of a path of names below the crate: the first name, and of `marts` the second, too.
fn module(names: &[&str]) -> Option<String> {
    match names {
        ["marts", name, ..] => Some(format!("marts::{name}")),
        [name, ..] => Some((*name).to_owned()),
        [] => None,
    }
}

fn read(dir: &Path, names: &[&str], graph: &mut Graph) {
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        let names: Vec<&str> = names.iter().copied().chain([stem]).collect();
        if path.is_dir() {
            read(&path, &names, graph);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(own) = module(&names)
        {
            let text = fs::read_to_string(&path).expect("UTF-8");
            graph.entry(own.clone()).or_default().extend(named(&text).filter(|m| *m != own));
        }
    }
}

/// The modules that a source names by `crate::…`, comments left out.
fn named(text: &str) -> impl Iterator<Item = String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = code.collect::<Vec<_>>().join("\n");
    let paths: Vec<String> = code
        .split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).next())
        .map(|path| path.unwrap_or_default().to_owned())
        .collect();
    paths.into_iter().filter_map(|path| module(&path.split("::").collect::<Vec<_>>()))
}

/// A way from a module back to itself, if there is one.
fn cycle(graph: &Graph) -> Option<Vec<&str>> {
    fn visit<'g>(
        graph: &'g Graph,
        at: &'g str,
        way: &mut Vec<&'g str>,
        done: &mut BTreeSet<&'g str>,
    ) -> Option<Vec<&'g str>> {
        if let Some(start) = way.iter().position(|module| *module == at) {
            return Some(way[start..].to_vec());
        }
        if done.contains(at) {
            return None;
        }
        way.push(at);
        let found = graph.get(at).into_iter().flatten().find_map(|to| visit(graph, to, way, done));
        way.pop();
        done.insert(at);
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| visit(graph, start, &mut Vec::new(), &mut done))
}

#[test]
fn no_module_knows_one_that_knows_it() {
    let mut graph = Graph::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut graph);
    for module in ["engine", "duck", "sql_gate", "encode", "marts::build", "http", "refresh"] {
        assert!(graph.contains_key(module), "{module} is not there");
    }
    assert!(graph["http"].contains("engine") && graph["engine"].contains("duck"));
    for (from, to) in [
        ("watch", "refresh"),
        ("watch", "catalog"),
        ("legacy", "catalog"),
        ("catalog", "events"),
        ("marts::build", "engine"),
        ("engine", "http"),
    ] {
        assert!(!graph[from].contains(to), "{from} knows {to}");
    }
    assert_eq!(cycle(&graph), None);
}

#[test]
fn what_only_one_module_may_name_no_other_does() {
    let allowed = [
        ("notify::", &["watch.rs"][..]),
        ("duckdb::ffi", &["duck/"]),
        ("hyper::", &["http/"]),
        ("pgwire::", &["pg/"]),
        ("object_store::", &["mirror/"]),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![root.clone()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("readable").map(|e| e.expect("entry").path()));
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(&root).expect("below").display().to_string();
        for (words, places) in allowed {
            let names_it = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.starts_with(&format!("use {words}")) || code.contains(&format!(" {words}"))
            });
            assert!(!names_it || places.iter().any(|at| name.starts_with(at)), "{name}: {words}");
        }
    }
}

#[test]
fn a_file_can_be_read_at_a_sitting() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let lines = fs::read_to_string(&path).expect("UTF-8").lines().count();
                assert!(lines <= 500, "{} has {lines} lines", path.display());
            }
        }
    }
}

#[test]
fn a_way_back_is_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(cycle(&graph(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    let there = graph(&[("a", "b"), ("b", "c"), ("c", "b")]);
    assert_eq!(cycle(&there), Some(vec!["b", "c"]));
    let text = "use crate::a::b; // crate::c\nlet x = crate::marts::build::y();";
    assert_eq!(named(text).collect::<Vec<_>>(), ["a", "marts::build"]);
}

#[test]
fn a_name_of_a_type_means_one_type() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![root.clone()];
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("readable").map(|e| e.expect("entry").path()));
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let file = path.strip_prefix(&root).expect("below").display().to_string();
        for name in text.lines().filter_map(declares) {
            declared.entry(name.to_owned()).or_default().push(file.clone());
        }
    }
    assert!(declared.contains_key("Snapshot") && declared.contains_key("QueryJob"));
    declared.retain(|_, files| files.len() > 1);
    assert!(declared.is_empty(), "declared twice: {declared:#?}");
}

/// The type that a line declares for more than its own module.
fn declares(line: &str) -> Option<&str> {
    let (visibility, rest) = line.split_once(' ')?;
    if !visibility.starts_with("pub") {
        return None;
    }
    let (kind, rest) = rest.split_once(' ')?;
    let is_type = matches!(kind, "struct" | "enum" | "trait" | "type" | "union");
    is_type.then(|| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()).flatten()
}
