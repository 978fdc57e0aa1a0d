use super::*;
use std::os::unix::fs::symlink;
use std::time::Duration;

fn names(scan: &Scan) -> Vec<&str> {
    scan.candidates.iter().map(|candidate| candidate.name.as_str()).collect()
}

#[test]
fn only_links_inside_the_root_are_followed() {
    let outside = tempfile::tempdir().expect("temporary directory");
    std::fs::write(outside.path().join("secret.parquet"), "x").expect("write");
    let root = tempfile::tempdir().expect("temporary directory");
    let mart = root.path().join("mart");
    std::fs::create_dir_all(mart.join("..v1")).expect("mkdir");
    std::fs::write(mart.join("..v1/a.parquet"), "x").expect("write");
    symlink("..v1", mart.join("..data")).expect("symlink");
    symlink("..data/a.parquet", mart.join("a.parquet")).expect("symlink");
    symlink(outside.path().join("secret.parquet"), mart.join("b.parquet")).expect("symlink");
    symlink("nowhere", mart.join("c.parquet")).expect("symlink");

    let dir = OpenDir::open(&root.path().join("mart"), root.path()).expect("open");
    let scan = dir.scan(|_| false, |_, _| {}).expect("scan");

    assert_eq!(names(&scan), ["a"]);
    let reasons: Vec<_> = scan.ignored.iter().map(|r| (&*r.file, &*r.reason)).collect();
    assert_eq!(
        reasons,
        [
            ("b.parquet", "is a link that leads out of PARQUET_DIR"),
            ("c.parquet", "is a link to nothing"),
        ]
    );
    assert!(dir.open_file("a.parquet").is_ok());
    assert!(dir.open_file("b.parquet").is_err());
}

#[test]
fn the_second_of_names_equal_but_for_case_is_rejected() {
    let root = tempfile::tempdir().expect("temporary directory");
    let mart = root.path().join("mart");
    std::fs::create_dir(&mart).expect("mkdir");
    for name in ["Fct.parquet", "fct.parquet", "Äpfel.parquet", "äpfel.parquet"] {
        std::fs::write(mart.join(name), "x").expect("write");
    }
    let scan = OpenDir::open(&root.path().join("mart"), root.path())
        .expect("open")
        .scan(|_| false, |_, _| {})
        .expect("scan");
    assert_eq!(names(&scan), ["Fct", "Äpfel", "äpfel"]);
    assert_eq!(scan.rejected.len(), 1);
    assert!(scan.rejected[0].reason.contains("from Fct in"), "{:?}", scan.rejected);

    // The one that is served keeps its name.
    let dir = OpenDir::open(&root.path().join("mart"), root.path()).expect("open");
    let scan = dir.scan(|name| name == "fct", |_, _| {}).expect("scan");
    assert_eq!(names(&scan), ["fct", "Äpfel", "äpfel"]);
    let rejected = &scan.rejected[0];
    assert_eq!(rejected.file, "Fct.parquet");
    assert!(rejected.reason.contains("from fct in case alone"), "{rejected:?}");
}

#[test]
fn a_file_is_young_while_its_clock_may_hide_a_rewrite() {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let identity = Identity::of_open(file.as_file()).expect("stat");
    let written = identity.modified();
    let window = Duration::from_millis(20);
    assert!(identity.is_young(written + Duration::from_millis(19), window));
    assert!(!identity.is_young(written + Duration::from_millis(21), window));
    assert!(!identity.is_young(written - Duration::from_secs(3600), window));
}

#[test]
fn parts_are_parquet_files_at_any_depth() {
    let outside = tempfile::tempdir().expect("temporary directory");
    std::fs::write(outside.path().join("secret.parquet"), "x").expect("write");
    let root = tempfile::tempdir().expect("temporary directory");
    let mart = root.path().join("mart");
    for path in [
        "x/a.parquet",
        "x/_year=2026/b=1/c.parquet",
        "x/sub/d.parquet",
        "x/tmp_e.parquet",
        "x/_f.parquet",
        "x/.g.parquet",
        "x/_temporary/h.parquet",
        "x/.sub/i.parquet",
        "x/notes.txt",
        "..v1/j.parquet",
        "empty/notes.txt",
        "_builds/k.parquet",
    ] {
        let path = mart.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, "x").expect("write");
    }
    symlink("../..v1", mart.join("x/linked")).expect("symlink");
    symlink("../x/sub/d.parquet", mart.join("x/l.parquet")).expect("symlink");
    symlink(outside.path(), mart.join("x/out")).expect("symlink");
    symlink(outside.path().join("secret.parquet"), mart.join("x/m.parquet")).expect("symlink");

    let dir = OpenDir::open(&mart, root.path()).expect("open");
    let mut entered = Vec::new();
    let scan = dir.scan(|_| false, |name, _| entered.push(name.to_owned())).expect("scan");
    assert_eq!(names(&scan), ["x"]);
    let paths: Vec<_> = scan.candidates[0].files.iter().map(|file| &*file.path).collect();
    let parts = ["_year=2026/b=1/c", "a", "l", "linked/j", "sub/d"];
    assert_eq!(paths, parts.map(|part| format!("x/{part}.parquet")));
    assert_eq!(entered, ["empty", "x"]);
    let ignored: Vec<_> = scan.ignored.iter().map(|remark| &*remark.file).collect();
    assert_eq!(ignored, ["empty"]);

    // Links that lead in circles end, too.
    symlink(".", mart.join("x/sub/again")).expect("symlink");
    let parts = dir.parts("x", |_| {}).expect("readable").expect("there");
    let problem = parts.directory.and_then(|directory| directory.problem);
    assert!(problem.is_some_and(|problem| problem.contains("folders 32 deep")));
}
