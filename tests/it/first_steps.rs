//! What somebody types first: `serve` with a path, `init` for a dbt project, completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use duckdb::Connection;

use crate::harness::{Martd, Root, run, wait_for};
use crate::writers::{Writer, put};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Serves a path, where `PARQUET_DIR` names another directory.
fn serve(path: &Path, settings: &[(&str, &str)]) -> Martd {
    let elsewhere = Path::new("/nowhere");
    Martd::run(Martd::command(&[], elsewhere, settings).args(["serve", text(path)]))
}

fn parquet(value: i32) -> Vec<u8> {
    Writer::new().parquet(&format!("SELECT {value} AS x"), None)
}

fn wait_for_value(martd: &Martd, value: i32) {
    wait_for("the mart", || {
        let answer = martd.query("SELECT x FROM mart.a");
        (answer.status == 200 && answer.value() == value).then_some(())
    });
}

fn refused(path: &Path, settings: &[(&str, &str)]) -> String {
    let output = run(&["serve", text(path)], settings);
    assert_eq!(output.code, 2, "{output:?}");
    output.err
}

#[test]
fn schemas_that_no_mart_can_have_are_a_wrong_setting() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path().join("a.parquet"), &parquet(1));
    for schemas in ["pg_catalog", "mart,TEMP", "information_schema", "system", "main.x", "\"mart\""]
    {
        // A martd that does not mind goes on to what is wrong besides.
        let settings = [("MARTD_SCHEMAS", schemas), ("MARTD_TOKEN_FILE", "/nowhere/tokens")];
        let said = refused(dir.path(), &settings);
        assert!(said.contains("MARTD_SCHEMAS") && said.contains("cannot be a schema"), "{said}");
    }
    let martd = serve(dir.path(), &[("MARTD_SCHEMAS", " own , main"), ("MARTD_REQUIRE", " a ")]);
    martd.wait_ready();
    assert_eq!(martd.query("SELECT a.x + b.x FROM own.a, main.a b").value(), 2);
}

#[test]
fn serve_takes_a_directory_of_parquet_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    put(dir.path().join("a.parquet"), &parquet(1));
    let martd = serve(dir.path(), &[]);
    martd.wait_ready();
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 1);
    put(dir.path().join("a.parquet"), &parquet(2));
    wait_for_value(&martd, 2);
    // What is served does not change places: a `mart` that comes later is not what was meant.
    fs::create_dir(dir.path().join("mart")).expect("mkdir");
    put(dir.path().join("mart/a.parquet"), &parquet(3));
    put(dir.path().join("a.parquet"), &parquet(4));
    wait_for_value(&martd, 4);
    let check = run(&["check", text(dir.path())], &[]);
    assert!(check.out.contains(&format!("1 mart of {}/mart", text(dir.path()))), "{check:?}");
    // A record lies beside the files, too.
    fs::remove_dir_all(dir.path().join("mart")).expect("remove");
    let published = run(&["publish", "--dir", text(dir.path()), "--build", "b1"], &[]);
    assert_eq!(published.code, 0, "{published:?}");
    martd.wait_snapshot("the build", |s| {
        s["build"]["id"] == "b1" || s["build"]["invocation_id"] == "b1"
    });
    let released = run(&["rollback", "--release", "--dir", text(dir.path())], &[]);
    assert!(released.err.contains("no rollback is in force"), "{released:?}");
}

#[test]
fn serve_takes_the_directory_above_mart() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    put(root.path().join("other.parquet"), &parquet(2));
    let martd = serve(root.path(), &[]);
    martd.wait_ready();
    let marts = martd.snapshot()["marts"].as_array().expect("marts").len();
    assert_eq!((martd.query("SELECT x FROM mart.a").value(), marts), (1.into(), 1));
}

#[test]
fn serve_waits_in_an_empty_directory_for_either() {
    for mart in ["", "mart"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let martd = serve(dir.path(), &[]);
        wait_for("a look", || martd.snapshot()["directory"].is_null().then_some(()));
        let place = dir.path().join(mart);
        fs::create_dir_all(&place).expect("mkdir");
        put(place.join("a.parquet"), &parquet(1));
        wait_for_value(&martd, 1);
        put(place.join("a.parquet"), &parquet(2));
        wait_for_value(&martd, 2);
    }
}

#[test]
fn serve_takes_the_duckdb_file_of_a_stock_project() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["jaffle_shop.duckdb", "jaffle_shop.db"] {
        let file = dir.path().join(name);
        let connection = Connection::open(&file).expect("open");
        connection
            .execute_batch("CREATE TABLE orders AS SELECT 42 AS x; CREATE VIEW big AS FROM orders")
            .expect("create");
        drop(connection);
        let martd = serve(&file, &[]);
        martd.wait_ready();
        assert_eq!(martd.query("SELECT x FROM main.orders").value(), 42);
        assert_eq!(martd.query("SELECT x FROM main.big").value(), 42);
        let off = refused(&file, &[("MARTD_FALLBACK", "off")]);
        assert!(off.contains("--fallback (MARTD_FALLBACK)") && off.contains(text(&file)), "{off}");
        // Where schemas are named, those alone are served.
        let named = serve(&file, &[("MARTD_SCHEMAS", "mart")]);
        let snapshot = named.wait_snapshot("a verdict", |s| !s["rejected"][0].is_null());
        let reason = snapshot["rejected"][0]["reason"].as_str().expect("a reason");
        assert!(reason.contains("in the schemas mart;"), "{reason}");
    }
}

#[test]
fn serve_says_what_was_given_and_what_would_be_right() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a.parquet"), parquet(1)).expect("write");
    fs::write(path("notes.txt"), "x").expect("write");
    let says = |name: &str, words: &[&str]| {
        let error = refused(&path(name), &[]);
        for word in words.iter().chain([&text(&path(name))]) {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    };
    let right = "name a directory of Parquet files, or a DuckDB file";
    says("nowhere", &["No such file", right]);
    says("notes.txt", &["not a DuckDB file", right]);
    says("a.parquet", &["not a DuckDB file", &format!("martd serve {}", text(dir.path()))]);
}

#[test]
fn a_parquet_dir_that_names_mart_gets_a_hint() {
    let root = Root::new();
    let mart = root.path().join("mart");
    let hint = format!("set it to {}, or run `martd serve {}`", text(root.path()), text(&mart));
    // Also when there is nothing in it yet.
    for _ in 0..2 {
        let martd = Martd::start(&mart);
        let said = || martd.snapshot()["directory"].as_str().map(str::to_owned);
        let is_of_a_look = |said: &String| !said.contains("has not been read yet");
        let directory = wait_for("a look", || said().filter(is_of_a_look));
        assert!(directory.contains(&hint), "{directory}");
        let bootstrap = run(&["bootstrap"], &[("PARQUET_DIR", text(&mart))]);
        assert_eq!(bootstrap.code, 1);
        assert!(bootstrap.err.contains(&hint) && !mart.join("mart").exists(), "{bootstrap:?}");
        Writer::new().land(&root, "a", "SELECT 1 AS x");
    }
    // And one that has no such name.
    let other = tempfile::tempdir().expect("a temporary directory");
    put(other.path().join("a.parquet"), &parquet(1));
    let check = run(&["check"], &[("PARQUET_DIR", text(other.path()))]);
    let hint = format!("run `martd serve {}`", text(other.path()));
    assert_eq!(check.code, 1);
    assert!(check.err.contains(&hint) && !check.err.contains("bootstrap"), "{check:?}");
}

#[test]
fn completions_are_what_shells_read() {
    for (shell, checker) in
        [("bash", &["bash", "-n"][..]), ("zsh", &["zsh", "-n"]), ("fish", &["fish", "-n"])]
    {
        let script = run(&["completions", shell], &[]);
        assert_eq!(script.code, 0, "{script:?}");
        assert!(
            script.out.contains("healthcheck") && script.out.contains("parquet-dir"),
            "{shell}"
        );
        assert!(!script.out.contains("scratch'"), "what is hidden is not offered: {shell}");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("martd");
        fs::write(&file, &script.out).expect("write");
        match Command::new(checker[0]).args(&checker[1..]).arg(&file).status() {
            Ok(status) => assert!(status.success(), "{shell}"),
            Err(_) => println!("SKIPPED: there is no {shell}"),
        }
    }
    assert_eq!(run(&["completions", "cmd"], &[]).code, 2);
}

/// A dbt project.
struct Project {
    dir: tempfile::TempDir,
}

const PROFILE: &str = "shop:
  target: dev
  outputs:
    ci:
      type: duckdb
      path: ci.duckdb
    dev:
      type: duckdb # a file
      path: shop.duckdb
      threads: 4
";
const SHOP: &str = "name: 'shop'
config-version: 2
profile: 'shop'

models:
  shop:
    staging:
      +materialized: view
    marts:
      +materialized: table
";

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            fs::write(path, content).expect("write");
        }
        Self { dir }
    }

    fn init(&self, parquet_dir: &str) -> crate::harness::Output {
        run(&["init", "--dbt", text(self.dir.path())], &[("PARQUET_DIR", parquet_dir)])
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).expect("it is there")
    }

    /// Applies what `init` prints, and returns the lines that were there not before.
    fn apply(&self, with: &[&str], parquet_dir: &str) -> Vec<String> {
        let patch = self.init(parquet_dir);
        assert_eq!(patch.code, 0, "{patch:?}");
        let file = self.patch_file();
        fs::write(&file, &patch.out).expect("write");
        let command = Command::new(with[0])
            .args(&with[1..])
            .stdin(fs::File::open(&file).expect("open"))
            .current_dir(self.dir.path())
            .output()
            .expect("it starts");
        assert!(command.status.success(), "{command:?} of {}", patch.out);
        let added = |line: &&str| line.starts_with('+') && !line.starts_with("+++ ");
        let added: Vec<_> =
            patch.out.lines().filter(added).map(|line| line[1..].to_owned()).collect();
        assert!(patch.err.starts_with(&format!("{} added", added.len())), "{patch:?}");
        added
    }

    fn patch_file(&self) -> PathBuf {
        self.dir.path().join("the.patch")
    }
}

#[test]
fn init_needs_four_lines_for_a_stock_project() {
    for with in [&["patch", "-p1"][..], &["git", "apply"]] {
        let project = Project::new(&[("dbt_project.yml", SHOP), ("profiles.yml", PROFILE)]);
        let added = project.apply(with, "/srv/parquet");
        assert_eq!(added.len(), 4, "{added:?}");
        let dev = PROFILE.replace(
            "type: duckdb # a file\n",
            "type: duckdb # a file\n      external_root: /srv/parquet/mart\n",
        );
        assert_eq!(project.read("profiles.yml"), dev);
        let external = SHOP.replace("+materialized: table", "+materialized: external");
        assert_eq!(project.read("dbt_project.yml"), external);
        let packages = project.read("packages.yml");
        assert!(packages.starts_with("packages:\n  - local: /"), "{packages}");
        // What is there is not asked for again.
        let again = project.init("/srv/parquet");
        assert_eq!((again.code, &*again.out), (0, ""), "{again:?}");
        assert!(again.err.starts_with("nothing is to be changed"), "{again:?}");
        assert!(!again.err.contains("patch -p1"), "{again:?}");
    }
}

#[test]
fn init_keeps_what_a_project_has() {
    let packages = "# ours\npackages:\n- package: dbt-labs/dbt_utils\n  version: 1.3.0\n";
    let models = "name: shop\r\nmodels:\r\n  shop:\r\n    +materialized: view";
    let project = Project::new(&[
        ("dbt_project.yml", models),
        ("profiles.yml", PROFILE),
        ("packages.yml", packages),
        ("models/marts/orders.sql", "select 1"),
    ]);
    let added = project.apply(&["patch", "-p1", "--binary"], "/srv/par quet");
    assert!(added.len() <= 6, "{added:?}");
    let now = project.read("packages.yml");
    assert!(now.starts_with("# ours\npackages:\n- local: /"), "{now}");
    assert!(now.ends_with("\n- package: dbt-labs/dbt_utils\n  version: 1.3.0\n"), "{now}");
    let now = project.read("dbt_project.yml");
    assert_eq!(
        now,
        "name: shop\r\nmodels:\r\n  shop:\r\n    marts: {+materialized: external}\r\n    +materialized: view"
    );
    let now = project.read("profiles.yml");
    assert!(now.contains("      external_root: \"/srv/par quet/mart\"\n      path: shop"), "{now}");
}

#[test]
fn init_changes_a_setting_on_one_line_or_leaves_it() {
    let shop = |marts: &str| format!("name: shop\nmodels:\n  shop:\n    marts: {marts}\n");
    let init = |marts: &str| {
        let project =
            Project::new(&[("dbt_project.yml", &*shop(marts)), ("profiles.yml", PROFILE)]);
        let said = project.init("/srv/parquet");
        (said.code, said.out, said.err)
    };
    let (code, patch, _) = init("{+materialized: table, +tags: [a]}");
    assert!(
        code == 0 && patch.contains("+    marts: {+materialized: external, +tags: [a]}"),
        "{patch}"
    );
    let (code, patch, _) = init("{+materialized: external}");
    assert!(code == 0 && !patch.contains("dbt_project.yml"), "{patch}");
    // The default output gets the root; the others are named, and so is a package that is not where it says.
    let (_, patch, said) = init("{+materialized: table}");
    assert!(
        said.contains("give the other outputs of DuckDB an external_root")
            && said.contains(": ci\n"),
        "{said}"
    );
    let package =
        patch.lines().find_map(|line| line.strip_prefix("+  - local: ")).expect("it is added");
    assert_eq!(said.contains("the dbt package is not at"), !Path::new(package).exists(), "{said}");
    let (code, patch, todo) = init("{+tags: [a]}");
    assert!(code == 4 && !patch.contains("dbt_project.yml"), "{patch}");
    assert!(todo.contains("does not say which models are marts"), "{todo}");
}

#[test]
fn init_says_what_it_cannot_patch() {
    let project = Project::new(&[("dbt_project.yml", "name: shop\n")]);
    let todo = project.init("/srv/parquet");
    assert_eq!(todo.code, 4, "{todo:?}");
    assert!(todo.out.contains("+++ b/packages.yml"), "{todo:?}");
    for words in [
        "profiles.yml is not in the project; where it is, add below `type: duckdb`: external_root: \
         /srv/parquet/mart",
        "dbt_project.yml does not say which models are marts; add +materialized: external",
    ] {
        assert!(todo.err.contains(words), "no {words:?} in {}", todo.err);
    }
    let project = Project::new(&[
        ("dbt_project.yml", SHOP),
        ("profiles.yml", "shop:\n  outputs: {dev: {type: postgres}}\n"),
        ("packages.yml", "# none\n"),
    ]);
    let todo = project.init("/srv/parquet");
    assert_eq!(todo.code, 4, "{todo:?}");
    assert!(todo.err.contains("no output of `type: duckdb` for the profile shop"), "{todo:?}");
    assert!(todo.err.contains("packages.yml has no `packages:`"), "{todo:?}");
    let nothing = run(&["init", "--dbt", "/nowhere"], &[]);
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("/nowhere/dbt_project.yml: No such file"), "{nothing:?}");
}
