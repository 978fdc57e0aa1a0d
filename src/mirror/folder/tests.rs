use super::*;
use crate::mirror::object::Object;

const SOURCE: &str = "s3://bucket/marts";

fn version(etag: &str, size: usize) -> ObjectVersion {
    ObjectVersion { size: size as u64, etag: Some(etag.to_owned()), id: None, modified_ms: 0 }
}

fn download(folder: &Folder, path: &str, content: &str) -> Download {
    let mut file = folder.temporary().expect("a file");
    file.write_all(content.as_bytes()).expect("written");
    let mut hasher = Hasher::default();
    hasher.update(content.as_bytes());
    let object = Object { path: path.to_owned(), version: version(content, content.len()) };
    Download { object, file, digest: hasher.finish() }
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
    fs::write(dir.path().join(".mirror/state.json"), "{").expect("written");
    let broken = Folder::open(dir.path(), SOURCE, false).expect_err("refused").to_string();
    assert!(broken.contains("state.json does not parse"), "{broken}");
}

#[test]
fn a_file_that_cannot_be_written_stops_no_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut folder = Folder::open(dir.path(), SOURCE, false).expect("opened");
    let late = ["a.parquet", "sales/x.parquet", "sales/x.parquet/y.parquet", "z.parquet"];
    let downloads: Vec<Download> = late.iter().map(|path| download(&folder, path, path)).collect();
    let contents: Vec<Digest> = downloads.iter().map(|download| download.digest).collect();
    let (count, refused) = folder.install(downloads).expect("the directory can be written");
    assert_eq!(count, 3);
    assert!(matches!(refused.as_slice(), [FolderError::File { .. }]), "{refused:?}");
    assert_eq!(read(dir.path(), "z.parquet"), "z.parquet");
    let has_had: Vec<bool> =
        late.iter().zip(&contents).map(|(path, content)| folder.has_had(path, content)).collect();
    assert_eq!(has_had, [true, true, false, true], "no record may go by it");
}
