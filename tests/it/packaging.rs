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
        .args(variables)
        .output()
        .expect("make");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make {target}: {errors}");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    printed.lines().last().unwrap_or_default().to_owned()
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
fn an_installed_martd_runs_with_the_library_beside_it_alone() {
    let destination = tempfile::tempdir().expect("a temporary directory");
    let root = destination.path();
    let variables = [format!("DESTDIR={}", root.display()), "PREFIX=/opt/martd".to_owned()];
    make("install", &variables);
    let installed = root.join("opt/martd/bin/martd");
    let content = fs::read(&installed).expect("installed");
    let kept = b"$ORIGIN:$ORIGIN/../lib/martd\0";
    assert!(content.windows(kept.len()).any(|part| part == kept), "the run path ends there");
    serves(&installed);

    let read = |path: &str| fs::read_to_string(root.join(path)).expect("installed");
    let unit = read("opt/martd/lib/systemd/system/martd.service");
    assert!(unit.contains("ExecStart=/opt/martd/bin/martd serve"), "{unit}");
    assert!(read("opt/martd/share/doc/martd/LICENSE").contains("MIT"));
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
    for file in ["libduckdb.so", "LICENSE", "README.md", "systemd/martd.service"] {
        assert!(folder.join(file).exists(), "{file} is missing");
    }
    serves(&folder.join("martd"));
}
