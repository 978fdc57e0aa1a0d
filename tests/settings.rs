//! `docs/settings.md` says of each setting what `--help` says, and documents name no setting that is not
//! there. `UPDATE=1 cargo test --test settings` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use martd::commands::Cli;

/// Everything behind this line is generated.
const MARK: &str = "<!-- Generated from here on: UPDATE=1 cargo test --test settings -->\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = |arg: &&Arg| !matches!(arg.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(|arg| arg.get_long().is_some()).filter(own)
}

/// Where a flag says its default in words, it is the end of its help.
fn help_and_default(arg: &Arg) -> (String, String) {
    let help = arg.get_help().expect("every flag has a help").to_string();
    let stated: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let stated = stated.join(",");
    match help.split_once(" [default: ") {
        Some((before, rest)) => {
            let (words, after) = rest.split_once(']').expect("a bracket is closed");
            (format!("{before}{after}"), words.to_owned())
        }
        None if stated.is_empty() => (help, String::new()),
        None => (help, format!("`{stated}`")),
    }
}

fn row(arg: &Arg) -> String {
    let variable = arg.get_env().map(|name| format!("`{}`<br>", name.to_string_lossy()));
    let flag = arg.get_long().expect("it is a flag");
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().filter(|_| takes_value);
    let value = value.map_or(String::new(), |names| format!(" {}", names[0]));
    let (mut help, default) = help_and_default(arg);
    for choice in arg.get_possible_values().into_iter().filter(|_| takes_value) {
        let meaning = choice.get_help().map(|text| format!(": {text}")).unwrap_or_default();
        write!(help, "<br>`{}`{meaning}", choice.get_name()).expect("a String takes all");
    }
    let variable = variable.unwrap_or_default();
    format!("| {variable}`--{flag}{value}` | {default} | {help} |\n")
}

fn table(title: &str, flags: impl Iterator<Item = String>) -> String {
    let rows: String = flags.collect();
    format!("\n## {title}\n\n| setting | default | |\n|---|---|---|\n{rows}")
}

fn generated() -> String {
    let cli = Cli::command();
    let command =
        |name: &str| cli.find_subcommand(name).unwrap_or_else(|| panic!("there is no {name}"));
    let serve = command("serve");
    let heading = |flag: &Arg| {
        let heading = flag.get_help_heading();
        heading.unwrap_or_else(|| panic!("{flag} is under no heading of --help")).to_owned()
    };
    let mut headings: Vec<String> = Vec::new();
    for flag in flags(serve).map(heading) {
        if !headings.contains(&flag) {
            headings.push(flag);
        }
    }
    let mut text = MARK.to_owned();
    for title in headings {
        text += &table(&title, flags(serve).filter(|flag| heading(flag) == title).map(row));
    }
    let asks = ["server", "token"];
    let of_clients = flags(command("query")).filter(|f| asks.contains(&f.get_long().expect("one")));
    text += &table("For `martd query`, `freshness` and `wait`", of_clients.map(row));
    let (of_mirror, of_store): (Vec<&Arg>, Vec<&Arg>) =
        flags(command("mirror")).partition(|flag| flag.get_help_heading().is_none());
    text += &table("For `martd mirror`", of_mirror.into_iter().map(row));
    text + &table("For `martd mirror` and `martd publish --to`", of_store.into_iter().map(row))
}

#[test]
fn the_settings_document_says_what_help_says() {
    let path = root().join("docs/settings.md");
    let document = fs::read_to_string(&path).expect("docs/settings.md");
    let (written, _) = document.split_once(MARK).expect("the mark is there");
    let anew = written.to_owned() + &generated();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, anew).expect("written");
    } else {
        assert!(document == anew, "docs/settings.md is out of date: {MARK}");
    }
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).expect("docs").map(|e| e.expect("entry").path());
    docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)))
        .collect()
}

/// The names of martd's variables in a text.
fn variables(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')
        .filter(|word| word.starts_with("MARTD_") && !word.ends_with('_'))
        .collect()
}

#[test]
fn documents_name_no_setting_that_is_not_there() {
    let cli = Cli::command();
    let mut known: BTreeSet<String> = cli
        .get_subcommands()
        .flat_map(Command::get_arguments)
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect();
    // Those of tests, and of what asks martd.
    known.extend(["MARTD_BIN", "MARTD_TEST_FAULTS"].map(str::to_owned));
    for file in ["clients/python/README.md", "dbt/README.md"] {
        let text = fs::read_to_string(root().join(file)).expect("it is there");
        known.extend(variables(&text).into_iter().map(str::to_owned));
    }
    for path in documents() {
        let text = fs::read_to_string(&path).expect("UTF-8");
        for name in variables(&text) {
            assert!(known.contains(name), "{}: there is no {name}", path.display());
        }
    }
}
