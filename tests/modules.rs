//! How the sources are laid out and named: modules know each other in one direction, a name means one thing and is short,
//! and documents name only tests that exist.

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

/// The files below `folder` whose names end in `.extension`, each by its path below the repository and with its text.
fn sources(folder: &str, extension: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(&path).expect("readable").map(|e| e.expect("entry").path()));
        } else if path.extension().is_some_and(|e| e == extension) {
            let name = path.strip_prefix(root).expect("below").display().to_string();
            found.push((name, fs::read_to_string(&path).expect("UTF-8")));
        }
    }
    assert!(!found.is_empty(), "{folder} has no .{extension} file");
    found
}

fn graph() -> Graph {
    let mut graph = Graph::new();
    for (path, text) in sources("src", "rs") {
        let names =
            path.strip_prefix("src/").expect("below").strip_suffix(".rs").expect("a source");
        let own = module(&names.split('/').collect::<Vec<_>>()).expect("a name");
        graph.entry(own.clone()).or_default().extend(named(&text).filter(|m| *m != own));
    }
    graph
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
    let graph = graph();
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
    for (path, text) in sources("src", "rs") {
        let name = path.strip_prefix("src/").expect("below");
        for (words, files) in allowed {
            let names_it = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.starts_with(&format!("use {words}")) || code.contains(&format!(" {words}"))
            });
            assert!(!names_it || files.iter().any(|at| name.starts_with(at)), "{name}: {words}");
        }
    }
}

#[test]
fn a_file_can_be_read_at_a_sitting() {
    for (path, text) in sources("src", "rs") {
        let lines = text.lines().count();
        assert!(lines <= 500, "{path} has {lines} lines");
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
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in sources("src", "rs") {
        for name in text.lines().filter_map(declares) {
            declared.entry(name.to_owned()).or_default().push(path.clone());
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

/// The names of the functions in a source of Rust or Python.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(move |c| !is_part(c)).filter(|word| !word.is_empty());
    let pairs = words.clone().zip(words.skip(1));
    pairs.filter(|(keyword, _)| ["fn", "def"].contains(keyword)).map(|(_, name)| name)
}

#[test]
fn a_functions_name_has_at_most_fifty_characters() {
    let folders = [("src", "rs"), ("tests", "rs"), ("benches", "rs")].into_iter().chain(
        ["tests", "benches", "clients/python/tests", "dbt/checks"].map(|folder| (folder, "py")),
    );
    for (folder, extension) in folders {
        for (path, text) in sources(folder, extension) {
            for name in functions(&text) {
                assert!(name.len() <= 50, "{path}: {name} has {} characters", name.len());
            }
        }
    }
    let names = functions("pub fn one() {}\n    async fn two<T>(").collect::<Vec<_>>();
    assert_eq!(names, ["one", "two"]);
}

/// Whether a line of a source breaks a text that goes on in the next one without a `\\`, so that the indentation of the
/// next one becomes a part of it.
fn has_gap(line: &str) -> bool {
    let line = line.trim();
    let gaps = line.match_indices("      ").map(|(at, _)| &line[..at]);
    let mut in_text =
        gaps.filter(|before| !before.ends_with([' ', '^']) && !before.ends_with("\\n"));
    line.contains('"') && !line.starts_with("//") && in_text.any(|before| before.contains('"'))
}

#[test]
fn no_message_has_a_gap_where_a_line_was_joined() {
    for (path, text) in sources("src", "rs") {
        let gap = text.lines().find(|line| has_gap(line));
        assert!(gap.is_none(), "{path}: {}", gap.unwrap_or_default());
    }
    assert!(has_gap("\"records are                  never changed\""));
    assert!(!has_gap("let text = \"LINE 2: FROM f()\\n               ^\";"));
}

/// The tests that a document cites, as `file::test` (of `tests/it`) or `path/file.ext::test`.
fn cited(document: &str) -> impl Iterator<Item = (String, &str)> {
    document.split('`').skip(1).step_by(2).filter_map(|code| {
        let (file, test) = code.split_once("::")?;
        let path = if file.contains('/') { file.to_owned() } else { format!("tests/it/{file}.rs") };
        Some((path, test))
    })
}

/// The words by which the commands in a text select tests.
fn selected(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let commands = text.lines().flat_map(|line| line.split("&&"));
    let words = commands.flat_map(|command| {
        let one = command.split_once("nextest run ").and_then(|(_, rest)| rest.split(' ').next());
        let many = command.split_once("--test it -- ").map(|(_, rest)| rest.split(' '));
        one.into_iter().chain(many.into_iter().flatten())
    });
    let words = words.map(|word| word.split('`').next().unwrap_or_default());
    words.filter(|word| word.starts_with(|c: char| c.is_alphabetic())).map(str::to_owned).collect()
}

#[test]
fn every_selection_of_tests_finds_some() {
    let mut names = Vec::new();
    for (path, text) in ["src", "tests"].into_iter().flat_map(|folder| sources(folder, "rs")) {
        let module = path.trim_start_matches("src/").trim_start_matches("tests/it/");
        let module = module.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        names.extend(functions(&text).map(|name| format!("{module}::{name}")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| (path.to_owned(), fs::read_to_string(root.join(path)).expect("UTF-8"));
    let scripts = ["CONTRIBUTING.md", "Makefile", "scripts/fuzz"].map(read);
    let mut count = 0;
    for (path, text) in sources("docs", "md").into_iter().chain(scripts) {
        for word in selected(&text) {
            assert!(names.iter().any(|name| name.contains(&word)), "{path}: no test is {word}");
            count += 1;
        }
    }
    assert!(count > 10, "{count} found");
    let words = selected("cargo nextest run a`\n--test it -- --exact b \\\n c && d");
    assert_eq!(words, ["a", "b", "c"]);
}

#[test]
fn every_test_that_a_document_names_exists() {
    let text = sources("docs", "md").into_iter().find(|(path, _)| path == "docs/failure-modes.md");
    let (_, text) = text.expect("the document");
    for (path, test) in cited(&text) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        let source = fs::read_to_string(file).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(functions(&source).any(|name| name == test), "no {path}::{test}");
    }
    assert!(cited(&text).count() > 100);
    let few = cited("`kill::a` and `src/b.rs::c`, `d`").collect::<Vec<_>>();
    assert_eq!(few, [("tests/it/kill.rs".to_owned(), "a"), ("src/b.rs".to_owned(), "c")]);
}
