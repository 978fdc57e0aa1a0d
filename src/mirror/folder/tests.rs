use super::*;
use crate::mirror::bucket::Received;
use crate::mirror::object::Object;
use crate::mirror::status::tests::status;

const SOURCE: &str = "s3://bucket/marts";

fn version(etag: &str, size: usize) -> ObjectVersion {
    ObjectVersion { size: size as u64, etag: Some(etag.to_owned()), id: None, modified_ms: 0 }
}

fn download(folder: &Folder, path: &str, content: &str) -> Download {
    let mut file = folder.temporary().expect("a file");
    file.write_all(content.as_bytes()).expect("written");
    let object = Object { path: path.to_owned(), version: version(content, content.len()) };
    Download {
        object,
        file: file.into_temp_path(),
        received: Received { digest: Digest::of(content.as_bytes()), is_recorded: false },
    }
}

fn install(folder: &mut Folder, path: &str, content: &str) -> Vec<FolderError> {
    let download = download(folder, path, content);
    folder.install(vec![download]).expect("the directory can be written").1
}

fn read(dir: &Path, path: &str) -> String {
    fs::read_to_string(dir.join(path)).expect("readable")
}

#[test]
fn a_mirror_that_was_killed_knows_its_files_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    assert!(install(&mut folder, "a.parquet", "one").is_empty());
    folder.save().expect("saved");
    assert!(install(&mut folder, "a.parquet", "two").is_empty());
    let unfinished = folder.temporary().expect("a file").keep().expect("kept").1;
    drop(folder); // before it has noted that the second is there
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    assert!(!unfinished.exists());
    assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Own);
    let known = folder.mirrored()["a.parquet"].version.clone();
    assert_eq!(known, Some(version("two", 3)));
    // Between the note and the file: the one before is there, and is no other program's.
    fs::write(dir.path().join("a.parquet"), "one").expect("written");
    assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Own);
    assert_eq!(folder.mirrored()["a.parquet"].version, None, "so it is downloaded");
    fs::write(dir.path().join("a.parquet"), "other").expect("written");
    assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Foreign);
}

#[test]
fn files_of_others_are_neither_replaced_nor_removed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("a.parquet"), "mine").expect("written");
    fs::write(dir.path().join("b.parquet"), "same").expect("written");
    fs::write(dir.path().join("sales"), "a file where a directory is to be").expect("written");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    let refused = install(&mut folder, "a.parquet", "ours");
    assert!(matches!(refused.as_slice(), [FolderError::Foreign(path)] if path == "a.parquet"));
    // It was compared, and is not downloaded to be compared again.
    assert!(!folder.may_be("a.parquet", &version("ours", 4)));
    assert!(folder.may_be("a.parquet", &version("new!", 4)));
    assert!(install(&mut folder, "b.parquet", "same").is_empty(), "a copy is as good");
    assert_eq!(folder.look("sales/x.parquet").expect("looked at"), LocalFile::Foreign);
    fs::write(dir.path().join("b.parquet"), "changed").expect("written");
    folder.remove("b.parquet").expect("nothing is wrong");
    assert_eq!(
        (read(dir.path(), "a.parquet"), read(dir.path(), "b.parquet")),
        ("mine".into(), "changed".into())
    );
    drop(folder);
    let mut folder = Folder::open(dir.path(), SOURCE, true).expect("opened");
    assert!(install(&mut folder, "a.parquet", "ours").is_empty());
    assert_eq!(read(dir.path(), "a.parquet"), "ours");
}

#[test]
fn a_directory_that_changes_is_complete_no_more() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let seal = dir.path().join("sales/_SUCCESS");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    install(&mut folder, "sales/a.parquet", "a");
    install(&mut folder, "sales/day=1/b.parquet", "b");
    folder.seal("sales", &version("", 0)).expect("sealed");
    assert!(seal.exists());
    install(&mut folder, "sales/a.parquet", "a2");
    assert!(!seal.exists());
    folder.seal("sales", &version("", 0)).expect("sealed");
    folder.remove("sales/day=1/b.parquet").expect("removed");
    assert!(!seal.exists() && !dir.path().join("sales/day=1").exists());
    folder.seal("sales", &version("", 0)).expect("sealed");
    folder.remove("sales/_SUCCESS").expect("removed");
    assert!(!seal.exists());
    folder.remove("sales/a.parquet").expect("removed");
    assert!(!dir.path().join("sales").exists());
}

#[test]
fn a_directory_has_one_mirror_of_one_source() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    folder.save().expect("saved");
    let second = Folder::open(dir.path(), SOURCE, false).expect_err("locked");
    assert!(matches!(second, FolderError::Locked(_)), "{second}");
    drop(folder);
    let other = Folder::open(dir.path(), "s3://other", false).expect_err("refused").to_string();
    assert!(other.contains("mirrors s3://bucket/marts, and not s3://other"), "{other}");
}

#[test]
fn what_is_known_and_of_no_use_begins_anew() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join(".mirror/state.json");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    assert!(install(&mut folder, "a.parquet", "one").is_empty());
    assert!(install(&mut folder, "b.parquet", "two").is_empty());
    folder.save().expect("saved");
    drop(folder);
    let good = fs::read_to_string(&state).expect("readable");
    let later = good.replace("\"version\":1,\"source\"", "\"version\":2,\"source\"");
    assert_ne!(later, good);
    for text in ["", "{", &good[..good.len() / 2], &later, "null"] {
        fs::write(&state, text).expect("written");
        let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
        assert!(folder.mirrored().is_empty(), "{text}");
        assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Foreign);
        // A copy of the object is the mirror's own, and what is none is left alone.
        assert!(install(&mut folder, "a.parquet", "one").is_empty());
        assert_eq!(install(&mut folder, "b.parquet", "new").len(), 1);
        assert_eq!(read(dir.path(), "b.parquet"), "two");
        folder.save().expect("saved");
        drop(folder);
        let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
        assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Own);
    }
}

#[test]
fn a_directory_that_was_replaced_is_opened_anew() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let [dir, old] = ["mart", "old"].map(|name| root.path().join(name));
    let mut folder = Folder::open(&dir, SOURCE, false).expect("opened");
    assert!(!folder.find_again().expect("there"));
    assert!(install(&mut folder, "a.parquet", "one").is_empty());
    folder.save().expect("saved");
    fs::rename(&dir, &old).expect("renamed");
    assert!(folder.find_again().expect("made"), "it is another one");
    assert!(!folder.find_again().expect("there"));
    assert!(folder.mirrored().is_empty() && folder.records().is_empty());
    assert!(install(&mut folder, "a.parquet", "two").is_empty());
    assert_eq!(read(&dir, "a.parquet"), "two");
    let second = Folder::open(&dir, SOURCE, false).expect_err("locked");
    assert!(matches!(second, FolderError::Locked(_)), "{second}");
    // What comes back is known again.
    fs::remove_dir_all(&dir).expect("removed");
    fs::rename(&old, &dir).expect("renamed");
    assert!(folder.find_again().expect("there"));
    assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Own);
    // The lock alone.
    fs::remove_dir_all(dir.join(".mirror")).expect("removed");
    assert!(folder.find_again().expect("there"));
    assert_eq!(folder.look("a.parquet").expect("there"), LocalFile::Foreign);
}

#[test]
fn a_directory_whose_parent_is_gone_is_waited_for() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let above = root.path().join("parquet");
    let dir = above.join("mart");
    let mut folder = Folder::open(&dir, SOURCE, false).expect("opened");
    fs::remove_dir_all(&above).expect("removed");
    for _ in 0..2 {
        let gone = folder.find_again().expect_err("gone").to_string();
        assert!(gone.contains("parquet is not there"), "{gone}");
        assert!(!above.exists(), "it is not the mirror's to make");
    }
    fs::create_dir(&above).expect("made");
    assert!(folder.find_again().expect("made"));
    assert!(install(&mut folder, "a.parquet", "one").is_empty());
    assert_eq!(read(&dir, "a.parquet"), "one");
}

#[test]
fn a_link_does_not_lead_the_mirror_elsewhere() {
    use std::os::unix::fs::symlink;

    let root = tempfile::tempdir().expect("a temporary directory");
    let [dir, elsewhere] = ["mart", "elsewhere"].map(|name| root.path().join(name));
    for folder in [&dir, &elsewhere, &dir.join("stock")] {
        fs::create_dir(folder).expect("made");
    }
    symlink(&elsewhere, dir.join("sales")).expect("linked");
    symlink(&elsewhere, dir.join("stock/day=1")).expect("linked");
    let left = elsewhere.join("left.parquet");
    fs::write(&left, "").expect("written");
    for overwrites in [false, true] {
        let mut folder = Folder::open(&dir, SOURCE, overwrites).expect("opened");
        for (path, link) in
            [("sales/new.parquet", "sales"), ("stock/day=1/new.parquet", "stock/day=1")]
        {
            assert_eq!(folder.look(path).expect("looked at"), LocalFile::Foreign);
            assert_eq!(folder.seen(path), LocalFile::Foreign, "also when others are replaced");
            let refused = install(&mut folder, path, "x");
            let [error] = refused.as_slice() else { panic!("{path}: {refused:?}") };
            let expected = format!("{link} is a link or a file where the mirror needs a directory");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        // An empty one is no copy of an empty object, wherever it is.
        folder.look("sales/left.parquet").expect("looked at");
        assert!(!folder.may_be("sales/left.parquet", &version("", 0)));
        let refused = folder.seal("sales", &version("", 0)).expect_err("refused").to_string();
        assert!(refused.contains("sales is a link"), "{refused}");
    }
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 1);
    // What was the mirror's is not removed behind a link either.
    let mut folder = Folder::open(&dir, SOURCE, false).expect("opened");
    for path in ["week/a.parquet", "week/b.parquet"] {
        assert!(install(&mut folder, path, "x").is_empty());
    }
    folder.seal("week", &version("", 0)).expect("sealed");
    let moved = root.path().join("moved");
    fs::rename(dir.join("week"), &moved).expect("renamed");
    symlink(&moved, dir.join("week")).expect("linked");
    folder.remove("week/a.parquet").expect("nothing is wrong");
    folder.unseal("week").expect("nothing is wrong");
    let mut names: Vec<_> =
        fs::read_dir(&moved).expect("there").map(|e| e.expect("there").file_name()).collect();
    names.sort();
    assert_eq!(names, ["_SUCCESS", "a.parquet", "b.parquet"]);
}

#[test]
fn what_is_no_file_is_no_copy_of_an_object() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("mart");
    let mut folder = Folder::open(&dir, SOURCE, false).expect("opened");
    fs::write(root.path().join("a"), "same").expect("written");
    std::os::unix::fs::symlink("../a", dir.join("a.parquet")).expect("linked");
    folder.look("a.parquet").expect("looked at");
    assert!(!folder.may_be("a.parquet", &version("same", 4)));
    assert_eq!(install(&mut folder, "a.parquet", "same").len(), 1);
}

#[test]
fn its_own_directory_is_no_link() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let [dir, elsewhere] = ["mart", "elsewhere"].map(|name| root.path().join(name));
    fs::create_dir(&dir).expect("made");
    fs::create_dir(&elsewhere).expect("made");
    std::os::unix::fs::symlink(&elsewhere, dir.join(".mirror")).expect("linked");
    let refused = Folder::open(&dir, SOURCE, true).expect_err("refused").to_string();
    assert!(refused.contains(".mirror is a link"), "{refused}");
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0);
}

#[test]
fn a_file_that_cannot_be_written_stops_no_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    let late = ["a.parquet", "sales/x.parquet", "sales/x.parquet/y.parquet", "z.parquet"];
    let downloads: Vec<Download> = late.iter().map(|path| download(&folder, path, path)).collect();
    let contents: Vec<Digest> = downloads.iter().map(|download| download.received.digest).collect();
    let (count, refused) = folder.install(downloads).expect("the directory can be written");
    assert_eq!(count, 3);
    assert!(
        matches!(refused.as_slice(), [FolderError::Blocked(path)] if path == late[1]),
        "{refused:?}"
    );
    assert_eq!(read(dir.path(), "z.parquet"), "z.parquet");
    let has_had: Vec<bool> =
        late.iter().zip(&contents).map(|(path, content)| folder.has_had(path, content)).collect();
    assert_eq!(has_had, [true, true, false, true], "no record may go by it");
}

#[test]
fn a_content_that_did_not_get_there_is_forgotten() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let digest = |text: &str| Digest::of(text.as_bytes());
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    install(&mut folder, "a.parquet", "one");
    // Killed after a content was noted, and before its file was renamed into place.
    for path in ["a.parquet", "b.parquet"] {
        folder.state.stamps.remove(path);
        let known = folder.state.objects.entry(path.to_owned()).or_default();
        known.remember(version("two", 3), digest("two"));
    }
    folder.save().expect("saved");
    drop(folder);
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened again");
    assert_eq!(folder.look("a.parquet").expect("looked at"), LocalFile::Own);
    assert_eq!(folder.look("b.parquet").expect("looked at"), LocalFile::Absent);
    assert!(folder.has_had("a.parquet", &digest("one")));
    for path in ["a.parquet", "b.parquet"] {
        assert!(!folder.has_had(path, &digest("two")), "{path}");
    }
}

#[test]
fn a_directory_in_place_of_a_file_is_not_replaced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut folder = Folder::open(dir.path(), SOURCE, true).expect("opened");
    fs::create_dir(dir.path().join("a.parquet")).expect("made");
    folder.look("a.parquet").expect("looked at");
    assert_eq!(folder.seen("a.parquet"), LocalFile::Foreign, "it is not downloaded to be refused");
    assert!(folder.refusal("a.parquet").to_string().contains("is a directory"));
}

#[test]
fn a_lost_state_does_not_end_the_wait_for_a_record() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    let mut status = MirrorStatus { awaits_record: true, ..status() };
    folder.tell(&status).expect("told");
    drop(folder);
    let folder = Folder::open(dir.path(), SOURCE, false).expect("opened again");
    assert!(folder.told().is_none() && folder.awaits_record());
    status.awaits_record = false;
    folder.tell(&status).expect("told");
    assert!(!folder.awaits_record());
}
