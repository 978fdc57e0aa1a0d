use super::*;
use std::os::unix::fs::symlink;
use std::time::Duration;

fn names(scan: &Scan) -> Vec<&str> {
    scan.candidates.iter().map(|candidate| candidate.name.as_str()).collect()
}

#[test]
fn links_inside_the_root_are_followed_and_others_are_not() {
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
    let scan = dir.scan(|_| false).expect("scan");

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
fn of_names_that_differ_in_case_alone_the_second_is_rejected() {
    let root = tempfile::tempdir().expect("temporary directory");
    let mart = root.path().join("mart");
    std::fs::create_dir(&mart).expect("mkdir");
    for name in ["Fct.parquet", "fct.parquet", "Äpfel.parquet", "äpfel.parquet"] {
        std::fs::write(mart.join(name), "x").expect("write");
    }
    let scan = OpenDir::open(&root.path().join("mart"), root.path())
        .expect("open")
        .scan(|_| false)
        .expect("scan");
    assert_eq!(names(&scan), ["Fct", "Äpfel", "äpfel"]);
    assert_eq!(scan.rejected.len(), 1);
    assert!(scan.rejected[0].reason.contains("Fct.parquet"), "{:?}", scan.rejected);

    // The one that is served keeps its name.
    let dir = OpenDir::open(&root.path().join("mart"), root.path()).expect("open");
    let scan = dir.scan(|name| name == "fct").expect("scan");
    assert_eq!(names(&scan), ["fct", "Äpfel", "äpfel"]);
    let rejected = &scan.rejected[0];
    assert_eq!(rejected.file, "Fct.parquet");
    assert!(rejected.reason.contains("from fct.parquet in case alone"), "{rejected:?}");
}

#[test]
fn a_file_is_young_while_a_coarse_clock_could_hide_a_rewrite() {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let identity = Identity::of_open(file.as_file()).expect("stat");
    let written = identity.modified();
    let window = Duration::from_millis(20);
    assert!(identity.is_young(written + Duration::from_millis(19), window));
    assert!(!identity.is_young(written + Duration::from_millis(21), window));
    assert!(!identity.is_young(written - Duration::from_secs(3600), window));
}
