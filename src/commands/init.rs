//! `martd init --dbt DIR`: the patch with which a dbt project is served as whole builds.
//!
//! YAML files are looked at by their keys and indentation and changed line by line, so that comments
//! and style stay. What is written in another way (flow style, templates) is left to the reader, who
//! is told which line to add.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use similar::{ChangeTag, TextDiff};

use super::{CommandError, EXIT_WARN, complain, print};

/// What `init` needs.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The project: the directory of its dbt_project.yml
    #[arg(long, value_name = "DIR")]
    dbt: PathBuf,

    /// Marts will be written to its subdirectory `mart`
    #[arg(long, env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,
}

/// Where `make install` puts the dbt package.
const INSTALLED: &str = "/usr/local/share/martd/dbt";

pub(super) fn run(args: &InitArgs) -> Result<ExitCode, CommandError> {
    let mut patch = Patch { dir: args.dbt.clone(), ..Patch::default() };
    patch.make(&args.parquet_dir)?;
    print(&patch.text);
    let (dir, marts) = (args.dbt.display(), args.parquet_dir.display());
    match (patch.lines, patch.todo.is_empty()) {
        (0, true) => eprintln!("nothing is to be changed: the project has all that is needed"),
        (0, false) => {}
        (lines, _) => {
            eprintln!("{lines} added or changed lines; apply them with: patch -p1 -d {dir}");
        }
    }
    if patch.text.contains(INSTALLED) && !Path::new(INSTALLED).exists() {
        eprintln!(
            "the dbt package is not at {INSTALLED}: `make install` puts it there; or write the path where it is"
        );
    }
    for note in &patch.notes {
        eprintln!("{note}");
    }
    eprintln!(
        "then: dbt deps && dbt build, and martd serve {marts} (with --state-dir DIR a restart keeps the last good build)"
    );
    Ok(if patch.todo.is_empty() {
        ExitCode::SUCCESS
    } else {
        complain(&patch.todo.join("\nmartd: "), EXIT_WARN)
    })
}

/// What is to be changed in a project.
#[derive(Default)]
struct Patch {
    dir: PathBuf,
    text: String,
    /// Added or changed.
    lines: usize,
    /// What has to be done by hand.
    todo: Vec<String>,
    /// What else is worth knowing.
    notes: Vec<String>,
}

impl Patch {
    fn make(&mut self, parquet_dir: &Path) -> Result<(), String> {
        let project = self.read("dbt_project.yml")?;
        let top = |key: &str| project.key(project.all(), key).map(|line| project.value(line));
        let name = top("name").ok_or("dbt_project.yml has no name")?.to_owned();
        let profile = top("profile").unwrap_or(&name).to_owned();
        let root =
            std::path::absolute(parquet_dir.join("mart")).map_err(|error| error.to_string())?;
        self.package()?;
        self.profile(&profile, &scalar(&root))?;
        self.models(project, &name);
        Ok(())
    }

    fn read(&self, file: &str) -> Result<Yaml, String> {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path);
        text.map(|text| Yaml::new(&text)).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn package(&mut self) -> Result<(), String> {
        let entry = format!("- local: {}", scalar(&package()));
        for file in ["packages.yml", "dependencies.yml"] {
            if !self.dir.join(file).exists() {
                continue;
            }
            let mut yaml = self.read(file)?;
            if let Some(key) = yaml.key(yaml.all(), "packages") {
                if !yaml.below(key).any(|line| is_package(&yaml.lines[line])) {
                    let indent = yaml.below(key).find(|&line| !yaml.is_blank(line));
                    let indent = indent.map_or(2, |line| yaml.indent(line));
                    yaml.insert(key + 1, indent, &entry);
                    self.add(file, Some(&self.read(file)?), &yaml);
                }
                return Ok(());
            }
        }
        if self.dir.join("packages.yml").exists() {
            self.todo.push(format!("packages.yml has no `packages:`; add it, with {entry}"));
        } else {
            self.add("packages.yml", None, &Yaml::new(&format!("packages:\n  {entry}\n")));
        }
        Ok(())
    }

    fn profile(&mut self, profile: &str, root: &str) -> Result<(), String> {
        let setting = format!("external_root: {root}");
        let file = "profiles.yml";
        if !self.dir.join(file).exists() {
            self.todo.push(format!(
                "{file} is not in the project; where it is, add below `type: duckdb`: {setting}"
            ));
            return Ok(());
        }
        let old = self.read(file)?;
        let mut yaml = self.read(file)?;
        let outputs = old.key(old.all(), profile).map(|profile| old.duckdb_outputs(profile));
        let outputs = outputs.unwrap_or_default();
        match outputs.first().copied() {
            Some((output, _)) if yaml.key(yaml.below(output), "external_root").is_some() => {
                let note = "has an external_root already: PARQUET_DIR is the directory above it";
                self.notes.push(format!("{file} {note}"));
            }
            Some((_, kind)) => {
                yaml.insert(kind + 1, yaml.indent(kind), &setting);
                self.add(file, Some(&old), &yaml);
            }
            None => self.todo.push(format!(
                "{file} has no output of `type: duckdb` for the profile {profile}, on lines of its own; add to each output \
                 of DuckDB: {setting}"
            )),
        }
        let has_none = |output: &usize| old.key(old.below(*output), "external_root").is_none();
        let others = outputs.iter().skip(1).map(|(output, _)| *output).filter(has_none);
        let others: Vec<&str> = others.map(|output| old.name(output)).collect();
        if !others.is_empty() {
            self.notes.push(format!(
                "{file}: give the other outputs of DuckDB an external_root, too: this one, or one of its own if martd \
                 is not to serve what it writes: {}",
                others.join(", ")
            ));
        }
        Ok(())
    }

    fn models(&mut self, old: Yaml, name: &str) {
        const EXTERNAL: &str = "+materialized: external";
        let mut yaml = old.clone();
        let section = yaml.key(yaml.all(), "models");
        let section = section.and_then(|models| yaml.key(yaml.below(models), name));
        let marts = section.and_then(|section| yaml.marts(section));
        let within = marts.or(section).map_or(0..0, |section| yaml.below(section));
        let kinds: Vec<usize> = within
            .filter(|&line| yaml.name(line).trim_start_matches('+') == "materialized")
            .collect();
        if kinds.iter().any(|&line| yaml.value(line) == "external") {
            return;
        }
        let tables: Vec<usize> =
            kinds.into_iter().filter(|&line| yaml.value(line) == "table").collect();
        for line in &tables {
            yaml.lines[*line] = yaml.lines[*line].replacen("table", "external", 1);
        }
        // What is written as {..} in one line cannot be added to, but a word in it can be changed.
        let in_one_line = marts.map(|line| (line, yaml.value(line).to_owned()));
        match in_one_line {
            Some((_, value)) if value.contains("materialized: external") => return,
            Some((line, value)) if value.contains("materialized: table") => {
                let changed =
                    yaml.lines[line].replacen("materialized: table", "materialized: external", 1);
                yaml.lines[line] = changed;
                return self.add("dbt_project.yml", Some(&old), &yaml);
            }
            _ => {}
        }
        let is_open = |line: &usize| yaml.value(*line).is_empty();
        let (marts, section) = (
            marts.filter(is_open),
            section.filter(is_open).filter(|_| marts.is_none_or(|line| is_open(&line))),
        );
        if tables.is_empty() {
            match (marts, section, marts_folder(&self.dir.join("models"))) {
                (Some(marts), _, _) => yaml.insert(marts + 1, yaml.indent_below(marts), EXTERNAL),
                (None, Some(section), Some(folder)) => {
                    let indent = yaml.indent_below(section);
                    yaml.insert(section + 1, indent, &format!("{folder}: {{{EXTERNAL}}}"));
                }
                _ => {
                    return self.todo.push(format!(
                        "dbt_project.yml does not say which models are marts; add {EXTERNAL} for them, \
                         below models: {name}:"
                    ));
                }
            }
        }
        self.add("dbt_project.yml", Some(&old), &yaml);
    }

    fn add(&mut self, file: &str, old: Option<&Yaml>, new: &Yaml) {
        let before = old.map_or_else(|| "/dev/null".to_owned(), |_| format!("a/{file}"));
        let (old, new) = (old.map(Yaml::text).unwrap_or_default(), new.text());
        let diff = TextDiff::from_lines(&old, &new);
        self.lines +=
            diff.iter_all_changes().filter(|line| line.tag() == ChangeTag::Insert).count();
        let unified = diff.unified_diff().header(&before, &format!("b/{file}")).to_string();
        self.text.push_str(&unified);
    }
}

/// The dbt package: installed, in a tarball or a wheel beside the program, or in the sources.
fn package() -> PathBuf {
    let program = std::env::current_exe().and_then(fs::canonicalize).unwrap_or_default();
    let candidates = ["dbt", "../share/martd/dbt", "../../dbt/package"];
    let mut candidates =
        candidates.iter().map(|candidate| program.with_file_name("").join(candidate));
    let found = candidates.find(|candidate| candidate.join("dbt_project.yml").exists());
    found.and_then(|candidate| fs::canonicalize(candidate).ok()).unwrap_or_else(|| INSTALLED.into())
}

/// Whether a line of `packages:` names the package: as it is installed, or in a copy of the sources.
fn is_package(line: &str) -> bool {
    ["martd/dbt", "dbt/package"].iter().any(|candidate| line.trim_end().ends_with(candidate))
}

fn marts_folder(models: &Path) -> Option<String> {
    let folders = fs::read_dir(models).ok()?.flatten().filter(|entry| entry.path().is_dir());
    folders.filter_map(|folder| folder.file_name().into_string().ok()).find(|name| is_marts(name))
}

/// What projects call the layer that others read.
fn is_marts(name: &str) -> bool {
    name.contains("mart")
}

/// A path as YAML.
fn scalar(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
    if is_plain { text } else { serde_json::Value::from(text).to_string() }
}

/// A YAML file as lines, each with its end.
#[derive(Clone)]
struct Yaml {
    lines: Vec<String>,
    end: &'static str,
}

impl Yaml {
    fn new(text: &str) -> Self {
        let lines = text.split_inclusive('\n').map(str::to_owned).collect();
        Self { lines, end: if text.contains("\r\n") { "\r\n" } else { "\n" } }
    }

    fn text(&self) -> String {
        self.lines.concat()
    }

    fn all(&self) -> Range<usize> {
        0..self.lines.len()
    }

    fn is_blank(&self, line: usize) -> bool {
        let text = self.lines[line].trim();
        text.is_empty() || text.starts_with('#') || text == "---"
    }

    fn indent(&self, line: usize) -> usize {
        self.lines[line].len() - self.lines[line].trim_start().len()
    }

    /// The key of a line.
    fn name(&self, line: usize) -> &str {
        let (name, _) = self.lines[line].split_once(':').unwrap_or_default();
        name.trim().trim_matches(['"', '\''])
    }

    /// What stands behind the key.
    fn value(&self, line: usize) -> &str {
        let (_, value) = self.lines[line].split_once(':').unwrap_or_default();
        value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\''])
    }

    /// The lines that belong to a key: what is indented deeper, or begins an item of its list.
    fn below(&self, key: usize) -> Range<usize> {
        let own = self.indent(key);
        let is_below = |line: usize| {
            let indent = self.indent(line);
            let is_item = self.lines[line].trim_start().starts_with('-');
            self.is_blank(line) || indent > own || (indent == own && is_item)
        };
        let end = (key + 1..self.lines.len()).find(|&line| !is_below(line));
        key + 1..end.unwrap_or(self.lines.len())
    }

    /// The keys of a mapping.
    fn keys(&self, within: Range<usize>) -> impl Iterator<Item = usize> {
        let mut lines = within.filter(|&line| !self.is_blank(line)).peekable();
        let indent = lines.peek().map_or(0, |&first| self.indent(first));
        lines.filter(move |&line| self.indent(line) == indent)
    }

    /// The line of a key of a mapping.
    fn key(&self, within: Range<usize>, name: &str) -> Option<usize> {
        self.keys(within).find(|&line| self.name(line) == name)
    }

    /// How far what belongs to a key is indented.
    fn indent_below(&self, key: usize) -> usize {
        self.keys(self.below(key)).next().map_or(self.indent(key) + 2, |line| self.indent(line))
    }

    /// The folder of marts below a project's models, however deep.
    fn marts(&self, section: usize) -> Option<usize> {
        self.below(section).find(|&line| !self.is_blank(line) && is_marts(self.name(line)))
    }

    /// The outputs whose type is `duckdb`, with the lines that say so: the one that is used unless another is
    /// asked for comes first.
    fn duckdb_outputs(&self, profile: usize) -> Vec<(usize, usize)> {
        let Some(outputs) = self.key(self.below(profile), "outputs") else { return Vec::new() };
        let target = self.key(self.below(profile), "target").map(|line| self.value(line));
        let of_duckdb = self.keys(self.below(outputs)).filter_map(|output| {
            let kind = self.key(self.below(output), "type")?;
            (self.value(kind) == "duckdb").then_some((output, kind))
        });
        let mut of_duckdb: Vec<_> = of_duckdb.collect();
        of_duckdb.sort_by_key(|(output, _)| Some(self.name(*output)) != target);
        of_duckdb
    }

    fn insert(&mut self, line: usize, indent: usize, text: &str) {
        if let Some(last) = line.checked_sub(1).and_then(|before| self.lines.get_mut(before))
            && !last.ends_with('\n')
        {
            last.push_str(self.end);
        }
        self.lines.insert(line, format!("{}{text}{}", " ".repeat(indent), self.end));
    }
}
