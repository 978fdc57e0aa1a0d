//! What `make install` and `make dist` lay down runs where it is put, and needs nothing of the build.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Martd, Root, program};
use crate::writers::Writer;

/// Runs a target of the Makefile with the program under test in the place of the release build, and
/// returns what it printed last.
fn make(target: &str, variables: &[String]) -> String {
    let library = Path::new(env!("DUCKDB_LIB_DIR")).display().to_string();
    let output = Command::new("make")
        .args(["--no-print-directory", "--directory", env!("CARGO_MANIFEST_DIR"), target])
        .arg(format!("MARTD={}", program().display()))
        .arg(format!("DUCKDB_LIB_DIR={library}"))
        // A debug build names the sources of its crates; the others are looked for.
        .arg("STRIPPED=yes")
        .arg(format!("BUILD_FOLDERS={}", build_folders().join(" ")))
        .args(variables)
        .output()
        .expect("make");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make {target}: {errors}");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    printed.lines().last().unwrap_or_default().to_owned()
}

/// Where this build lies.
fn build_folders() -> [String; 2] {
    let target = program().parent().and_then(Path::parent).expect("a folder");
    [env!("CARGO_MANIFEST_DIR").to_owned(), target.display().to_string()]
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What is shipped names what it is made of, and not where.
fn is_fit_to_ship(binary: &Path, licenses: &Path) {
    let content = fs::read(binary).expect("installed");
    for folder in build_folders() {
        let folder = folder.as_bytes();
        assert!(!content.windows(folder.len()).any(|part| part == folder), "{}", binary.display());
    }
    let text = fs::read_to_string(licenses).expect("installed");
    for named in
        ["\ntokio 1.", "\nDuckDB: re2\n", "Stichting DuckDB Foundation", "Tokio Contributors"]
    {
        assert!(text.contains(named), "no {named:?} in {}", licenses.display());
    }
}

/// Serves a mart, which takes the library, the gate, and a child that decodes.
fn serves(installed: &Path) {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 42 AS x");
    let command = Martd::command(&[], root.path(), &[]);
    let mut moved = Command::new(installed);
    moved.env_clear().stderr(std::process::Stdio::piped());
    moved.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let martd = Martd::run(&mut moved);
    martd.wait_ready();
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 42);
    // From where it lies now, and from nowhere else.
    let maps = fs::read_to_string(format!("/proc/{}/maps", martd.pid())).expect("it runs");
    let library = maps.lines().find(|line| line.ends_with("libduckdb.so")).expect("it is loaded");
    let folder = installed.parent().and_then(Path::parent).expect("a folder");
    let folder = fs::canonicalize(folder).expect("there").display().to_string();
    assert!(library.contains(&folder), "{library}");
}

#[test]
fn an_installed_martd_needs_only_its_library() {
    let destination = tempfile::tempdir().expect("a temporary directory");
    let root = destination.path();
    let variables = [format!("DESTDIR={}", root.display()), "PREFIX=/opt/martd".to_owned()];
    make("install", &variables);
    let installed = root.join("opt/martd/bin/martd");
    let content = fs::read(&installed).expect("installed");
    let kept = b"$ORIGIN:$ORIGIN/../lib/martd\0";
    assert!(content.windows(kept.len()).any(|part| part == kept), "the run path ends there");
    serves(&installed);
    is_fit_to_ship(&installed, &root.join("opt/martd/share/doc/martd/THIRD-PARTY-LICENSES"));

    let read = |path: &str| fs::read_to_string(root.join(path)).expect("installed");
    let unit = read("opt/martd/lib/systemd/system/martd.service");
    assert!(unit.contains("ExecStart=/opt/martd/bin/martd serve"), "{unit}");
    let unit = read("opt/martd/lib/systemd/system/martd-mirror.service");
    assert!(unit.contains("ExecStart=/opt/martd/bin/martd mirror"), "{unit}");
    assert!(read("etc/martd/martd-mirror.env").contains("MARTD_MIRROR_URL=s3://"));
    assert!(read("opt/martd/share/doc/martd/LICENSE").contains("MIT"));
    assert!(read("opt/martd/share/zsh/site-functions/_martd").contains("parquet-dir"));
    // Installed again, settings stay as the operator has them.
    fs::write(root.join("etc/martd/martd.env"), "MARTD_LISTEN=127.0.0.1:1\n").expect("write");
    make("install", &variables);
    assert_eq!(read("etc/martd/martd.env"), "MARTD_LISTEN=127.0.0.1:1\n");
}

#[test]
fn the_tarball_runs_from_any_directory() {
    let dist = tempfile::tempdir().expect("a temporary directory");
    let variables = [format!("DIST_DIR={}", dist.path().display()), "COMPRESS=gzip -1".to_owned()];
    let tarball = make("tarball", &variables);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let unpacked = Command::new("tar")
        .args(["--extract", "--file", &tarball, "--directory"])
        .arg(elsewhere.path())
        .status();
    assert!(unpacked.expect("tar").success());
    drop(dist);
    let folder = fs::read_dir(elsewhere.path()).expect("readable").next().expect("a folder");
    let folder = folder.expect("an entry").path();
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    let version = env!("CARGO_PKG_VERSION");
    assert!(name.starts_with(&format!("martd-{version}-linux-")), "{name}");
    for file in [
        "libduckdb.so",
        "LICENSE",
        "README.md",
        "systemd/martd.service",
        "systemd/martd-mirror.env",
    ] {
        assert!(folder.join(file).exists(), "{file} is missing");
    }
    serves(&folder.join("martd"));
    is_fit_to_ship(&folder.join("martd"), &folder.join("THIRD-PARTY-LICENSES"));
}

#[test]
fn the_wheel_runs_in_an_empty_environment() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| scratch.path().join(name);
    let dist = format!("DIST_DIR={}", path("dist").display());
    let wheel = make("wheel-of-build", &[dist, "LEVEL=1".to_owned()]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(wheel.contains(&format!("/martd-{version}-py3-none-manylinux_2_")), "{wheel}");
    succeeds(Command::new("python3").args(["-m", "venv"]).arg(path("venv")));
    let install = ["install", "--quiet", "--disable-pip-version-check", "--no-index", &wheel];
    let pip = path("venv/bin/pip");
    succeeds(Command::new(&pip).args(install));
    succeeds(Command::new(&pip).args(install).arg("--target").arg(path("target")));
    fs::remove_dir_all(path("dist")).expect("remove");

    for (folder, packages) in [("venv", "venv/lib"), ("target", "target")] {
        let installed = path(folder).join("bin/martd");
        let printed = succeeds(Command::new(&installed).arg("--version").env_clear());
        assert_eq!(printed, format!("martd {version}\n"));
        serves(&installed);
        let find =
            Command::new("find").arg(path(packages)).args(["-path", "*/martd/martd"]).output();
        let program = String::from_utf8(find.expect("find").stdout).expect("UTF-8");
        let program = Path::new(program.trim());
        let info = format!("martd-{version}.dist-info/licenses/THIRD-PARTY-LICENSES");
        let packages = program.ancestors().nth(2).expect("a folder");
        is_fit_to_ship(program, &packages.join(info));
        // It brings the dbt package, and `init` says where.
        let project = path("project");
        fs::create_dir_all(&project).expect("mkdir");
        fs::write(project.join("dbt_project.yml"), "name: shop\n").expect("write");
        let patch = Command::new(&installed).args(["init", "--dbt"]).arg(&project).output();
        let patch = String::from_utf8(patch.expect("it runs").stdout).expect("UTF-8");
        let package = packages.join("martd/dbt");
        assert!(patch.contains(&format!("- local: {}", package.display())), "{patch}");
        assert!(package.join("macros/hooks.sql").exists());
    }
    assert!(path("venv/share/fish/vendor_completions.d/martd.fish").exists());
}

#[test]
fn a_binary_with_a_build_path_is_not_installed() {
    let binary = tempfile::NamedTempFile::new().expect("a temporary file");
    let run_path = "$ORIGIN:$ORIGIN/../lib/martd:/home/me/src/target/duckdb\0";
    let forget = |content: String| {
        fs::write(binary.path(), content).expect("write");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/forget-build-path");
        let folders = ["/home/me/.cargo", "/home/me/src"];
        let output =
            Command::new(script).arg(binary.path()).args(folders).output().expect("it runs");
        (output.status.success(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    assert!(forget(run_path.to_owned()).0);
    let content = fs::read_to_string(binary.path()).expect("UTF-8");
    assert_eq!(content.trim_end_matches('\0'), "$ORIGIN:$ORIGIN/../lib/martd");
    let (done, error) = forget(format!("{run_path}…/home/me/src/src/main.rs\0"));
    assert!(
        !done && error.contains("names a folder of the build: /home/me/src/src/main.rs"),
        "{error}"
    );
}
