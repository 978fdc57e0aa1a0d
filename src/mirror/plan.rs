//! What a mirror writes and removes, in which order, and what it leaves alone. Nothing here reads a file, a
//! clock or the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::object::{Object, ObjectKind, ObjectVersion, directory, kind, record_of};
use crate::digest::Digest;
use crate::ledger::{self, FIRST_EDITION, Ledger, Record};
use crate::scan::SUCCESS;

/// Contents of a path that are remembered: as many versions as `serve` stages.
pub const REMEMBERED_VERSIONS: usize = 3;

/// The objects that martd reads, by path.
pub type Listing = BTreeMap<String, ObjectVersion>;
/// What was mirrored, by path.
pub type Mirrored = BTreeMap<String, MirroredObject>;
/// The records that are in the directory, by build.
pub type MirroredRecords = BTreeMap<String, Record>;

/// An object whose file the mirror has written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirroredObject {
    /// Which content it was; `None` when the file has another one of the mirror's.
    pub version: Option<ObjectVersion>,
    /// The contents that the mirror has written there, the newest first.
    pub contents: Vec<Digest>,
    /// Whether its writer says that a record will name it.
    #[serde(default)]
    pub is_recorded: bool,
}

impl MirroredObject {
    /// Adds a content that will be there.
    pub fn remember(&mut self, version: ObjectVersion, content: Digest) {
        self.version = Some(version);
        self.contents.retain(|known| *known != content);
        self.contents.insert(0, content);
        self.contents.truncate(REMEMBERED_VERSIONS);
    }

    /// Takes back a content that did not get there.
    pub fn forget(&mut self, content: &Digest) {
        self.version = None;
        self.contents.retain(|known| known != content);
    }
}

/// What is at a path of the mart directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFile {
    /// Nothing.
    Absent,
    /// What the mirror wrote.
    Own,
    /// What another program wrote.
    Foreign,
}

/// What is to be downloaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ObjectChanges {
    /// Marts and parts.
    pub data: Vec<Object>,
    /// Records.
    pub records: Vec<Object>,
    /// Files of other programs that stand in the way.
    pub foreign: Vec<String>,
}

/// Whether there are records, or will be.
pub fn has_records(listing: &Listing, mirrored: &Mirrored) -> bool {
    let is_record = |path: &String| kind(path) == Some(ObjectKind::Record);
    listing.keys().any(is_record) || mirrored.values().any(|object| object.is_recorded)
}

/// Compares. A file of another program's is compared with its object when they have the same size (`may_be` says so), and
/// else stands in the way.
pub fn changes(
    listing: &Listing,
    mirrored: &Mirrored,
    local: impl Fn(&str) -> LocalFile,
    may_be: impl Fn(&str, &ObjectVersion) -> bool,
) -> ObjectChanges {
    let mut changes = ObjectChanges::default();
    for (path, version) in listing {
        let known = mirrored.get(path).and_then(|known| known.version.as_ref());
        let is_there = known.is_some_and(|known| known.is_same_content_as(version));
        match local(path) {
            LocalFile::Own if is_there => continue,
            LocalFile::Foreign if !may_be(path, version) => {
                changes.foreign.push(path.clone());
                continue;
            }
            _ => {}
        }
        let object = Object { path: path.clone(), version: version.clone() };
        match kind(path) {
            Some(ObjectKind::Data) => changes.data.push(object),
            Some(ObjectKind::Record) => changes.records.push(object),
            Some(ObjectKind::Success) | None => {}
        }
    }
    changes
}

/// Objects whose folder is an object, too: a file cannot be both.
pub fn within_files(listing: &Listing) -> impl Iterator<Item = String> {
    let folders =
        |path: &str| path.rmatch_indices('/').any(|(end, _)| listing.contains_key(&path[..end]));
    listing.keys().filter(move |path| folders(path)).cloned()
}

/// How many of the new records, which are in the order in which they are folded, may be written: as many as
/// name nothing that is not here. `here` says whether a path has had a content, which is when `serve` has it.
pub fn ready(
    records: &MirroredRecords,
    new: &[Record],
    here: impl Fn(&str, &Digest) -> bool,
) -> (usize, Option<Missing>) {
    let mut first_missing = None;
    for count in (1..=new.len()).rev() {
        match missing(records, &new[..count], &here) {
            None => return (count, first_missing),
            missing => first_missing = missing,
        }
    }
    (0, first_missing)
}

/// A file that a record names and that is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The build.
    pub build: String,
    /// The file's path.
    pub path: String,
}

fn missing(
    records: &MirroredRecords,
    new: &[Record],
    here: impl Fn(&str, &Digest) -> bool,
) -> Option<Missing> {
    // What a later record replaces, or whose mart has left, is asked for no more.
    let ledger = ledger::fold(records.values().chain(new))?;
    let files = ledger.models.iter().flat_map(|model| &model.files);
    let mut files = files.filter(|file| !here(&file.path, &file.sha256));
    files.find_map(|file| {
        let names = |record: &&Record| record.marts.iter().any(|mart| mart.files.contains(file));
        let record = new.iter().find(names)?;
        Some(Missing { build: record.build.id.clone(), path: file.path.clone() })
    })
}

/// What has left the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// Removed here as well.
    pub remove: Vec<String>,
    /// Kept all the same.
    pub keep: Vec<String>,
}

/// Says what becomes of files whose objects are gone. A store that has lost everything, or is losing it,
/// does not empty the directory: what the records name stays, and so do records that no other one
/// replaces; and without records nothing is removed when nothing is listed at all.
pub fn removals(listing: &Listing, mirrored: &Mirrored, records: &MirroredRecords) -> Removals {
    let mut gone = mirrored.keys().filter(|path| !listing.contains_key(*path)).peekable();
    if gone.peek().is_none() {
        return Removals::default();
    }
    let ledger = ledger::fold(records.values());
    let is_kept = |path: &str| match kind(path) {
        _ if listing.is_empty() => true,
        Some(ObjectKind::Record) => match record_of(path) {
            Some(id) => !records.values().any(|record| record.replaces.iter().any(|old| old == id)),
            // The first edition's ledger is deleted when its project has moved to records.
            None => records.keys().all(|id| id == FIRST_EDITION),
        },
        Some(ObjectKind::Data) => ledger.as_ref().is_some_and(|ledger| names(ledger, path)),
        Some(ObjectKind::Success) | None => false,
    };
    let mut removals = Removals::default();
    for path in gone {
        let list = if is_kept(path) { &mut removals.keep } else { &mut removals.remove };
        list.push(path.clone());
    }
    removals
}

fn names(ledger: &Ledger, path: &str) -> bool {
    ledger.models.iter().any(|model| {
        let by_name = || path.strip_suffix(".parquet") == Some(&model.name);
        model.files.iter().any(|file| file.path == path) || model.files.is_empty() && by_name()
    })
}

/// The directories of parts that are complete in the store: their `_SUCCESS` is as new as all parts. With each, that mark,
/// and whether all of the parts are here, and no others.
pub fn complete<'l>(
    listing: &'l Listing,
    mirrored: &Mirrored,
) -> BTreeMap<&'l str, (&'l ObjectVersion, bool)> {
    let is_part = |path: &str, mart: &str| {
        directory(path) == Some(mart) && kind(path) == Some(ObjectKind::Data)
    };
    let marks = listing.iter().filter(|(path, _)| path.ends_with(SUCCESS));
    let marks = marks.filter(|(path, _)| kind(path) == Some(ObjectKind::Success));
    let marks = marks.filter_map(|(path, mark)| Some((directory(path)?, mark)));
    let complete = marks.filter_map(|(mart, mark)| {
        let mut parts = listing.iter().filter(|(path, _)| is_part(path, mart)).peekable();
        parts.peek()?;
        let mut is_here =
            mirrored.keys().all(|path| !is_part(path, mart) || listing.contains_key(path));
        for (path, version) in parts {
            if version.modified_ms > mark.modified_ms {
                return None;
            }
            let known = mirrored.get(path).and_then(|known| known.version.as_ref());
            is_here &= known.is_some_and(|known| known.is_same_content_as(version));
        }
        Some((mart, (mark, is_here)))
    });
    complete.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::record;

    fn version(etag: &str, modified_ms: i64) -> ObjectVersion {
        ObjectVersion { size: 1, etag: Some(etag.to_owned()), id: None, modified_ms }
    }

    fn listing(objects: &[(&str, &str)]) -> Listing {
        objects.iter().map(|(path, etag)| ((*path).to_owned(), version(etag, 0))).collect()
    }

    fn mirrored(objects: &[(&str, &str)]) -> Mirrored {
        let object = |etag| MirroredObject {
            version: Some(version(etag, 0)),
            contents: vec![digest(etag)],
            is_recorded: false,
        };
        objects.iter().map(|(path, etag)| ((*path).to_owned(), object(etag))).collect()
    }

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn records(all: &[Record]) -> MirroredRecords {
        all.iter().map(|record| (record.build.id.clone(), record.clone())).collect()
    }

    fn paths(objects: &[Object]) -> Vec<&str> {
        objects.iter().map(|object| object.path.as_str()).collect()
    }

    #[test]
    fn what_has_changed_or_is_gone_is_downloaded() {
        let listing = listing(&[
            ("_builds/b.json", "r"),
            ("gone.parquet", "g"),
            ("new.parquet", "n"),
            ("other.parquet", "o2"),
            ("same.parquet", "s"),
        ]);
        let known =
            mirrored(&[("gone.parquet", "g"), ("other.parquet", "o"), ("same.parquet", "s")]);
        let local = |path: &str| match path {
            "other.parquet" | "same.parquet" => LocalFile::Own,
            _ => LocalFile::Absent,
        };
        let found = changes(&listing, &known, local, |_, _| false);
        assert_eq!(paths(&found.data), ["gone.parquet", "new.parquet", "other.parquet"]);
        assert_eq!(paths(&found.records), ["_builds/b.json"]);
    }

    #[test]
    fn a_file_of_another_program_stands_in_the_way() {
        let listing = listing(&[("a.parquet", "a")]);
        let found = |may_be: bool| {
            changes(&listing, &Mirrored::new(), |_| LocalFile::Foreign, |_, _| may_be)
        };
        assert_eq!(found(false).foreign, ["a.parquet"]);
        assert!(found(false).data.is_empty());
        // It may be a copy.
        assert_eq!(paths(&found(true).data), ["a.parquet"]);
        // Also where the mirror had written before.
        let known = mirrored(&[("a.parquet", "a")]);
        let found = changes(&listing, &known, |_| LocalFile::Foreign, |_, _| false);
        assert_eq!(found.foreign, ["a.parquet"]);
    }

    #[test]
    fn an_object_within_an_object_is_found() {
        let listing = listing(&[
            ("sales/x.parquet", "a"),
            ("sales/x.parquet.parquet", "b"),
            ("sales/x.parquet/y.parquet", "c"),
            ("sales/x.parquet/z/y.parquet", "d"),
        ]);
        let found: Vec<String> = within_files(&listing).collect();
        assert_eq!(found, ["sales/x.parquet/y.parquet", "sales/x.parquet/z/y.parquet"]);
    }

    #[test]
    fn a_record_waits_for_the_files_that_it_names() {
        let here = |contents: &'static [(&str, &str)]| {
            move |path: &str, sha256: &Digest| {
                contents.iter().any(|(at, content)| *at == path && digest(content) == *sha256)
            }
        };
        let first = record("b1", 1, &[("a.parquet", "a1"), ("b.parquet", "b1")]);
        let second = record("b2", 2, &[("a.parquet", "a2")]);
        let none = MirroredRecords::new();
        let missing = |build: &str, path: &str| {
            Some(Missing { build: build.to_owned(), path: path.to_owned() })
        };
        let new = [first.clone(), second.clone()];
        assert_eq!(
            ready(&none, &new, here(&[("a.parquet", "a2"), ("b.parquet", "b1")])),
            (2, None)
        );
        // The first is whole, and the second not yet.
        assert_eq!(
            ready(&none, &new, here(&[("a.parquet", "a1"), ("b.parquet", "b1")])),
            (1, missing("b2", "a.parquet"))
        );
        // None is: what the first names was overwritten, and the second is on its way.
        assert_eq!(
            ready(&none, &new, here(&[("b.parquet", "b1")])),
            (0, missing("b1", "a.parquet"))
        );
        // What earlier records miss is nothing that a new one has to wait for.
        assert_eq!(ready(&records(&[first]), &[second], here(&[("a.parquet", "a2")])), (1, None));
        let failure = record::<&str>("b3", 3, &[]);
        assert_eq!(ready(&none, &[failure], here(&[])), (1, None));
    }

    #[test]
    fn a_mart_that_left_is_not_waited_for() {
        let first = record("b1", 1, &[("a.parquet", "a"), ("b.parquet", "b")]);
        let mut second = record("b2", 2, &[("b.parquet", "b2")]);
        second.nodes = Some(["b".to_owned()].into());
        let here = |path: &str, _: &Digest| path == "b.parquet";
        assert_eq!(ready(&MirroredRecords::new(), &[first, second], here), (2, None));
    }

    #[test]
    fn an_emptied_store_does_not_empty_the_directory() {
        let known = mirrored(&[("_builds/b1.json", "r"), ("a.parquet", "a"), ("b.parquet", "b")]);
        let records = records(&[record("b1", 1, &[("a.parquet", "a")])]);
        let gone = |left: &[(&str, &str)]| removals(&listing(left), &known, &records);
        assert_eq!(gone(&[]).remove, [""; 0]);
        // On the way there: what the records name stays, and they stay.
        let half = gone(&[("z.parquet", "z")]);
        assert_eq!(half.remove, ["b.parquet"]);
        assert_eq!(half.keep, ["_builds/b1.json", "a.parquet"]);
        let without = removals(&listing(&[("z.parquet", "z")]), &known, &MirroredRecords::new());
        assert_eq!(without.remove, ["a.parquet", "b.parquet"]);
    }

    #[test]
    fn what_is_replaced_or_has_left_is_removed() {
        let known = mirrored(&[("_builds/b1.json", "r"), ("_build.json", "o"), ("a.parquet", "a")]);
        let mut later = record("b2", 2, &[("b.parquet", "b")]);
        later.replaces = vec!["b1".to_owned()];
        let gone = removals(&listing(&[("b.parquet", "b")]), &known, &records(&[later]));
        assert_eq!(gone.remove, ["_build.json", "_builds/b1.json", "a.parquet"]);
        assert_eq!(gone.keep, [""; 0]);
    }

    #[test]
    fn a_directory_is_complete_if_its_mark_is_newest() {
        let mut objects = Listing::new();
        for (path, modified_ms) in [
            ("done/day=1/a.parquet", 5),
            ("done/_SUCCESS", 5),
            ("rewritten/a.parquet", 6),
            ("rewritten/_SUCCESS", 5),
            ("unmarked/a.parquet", 1),
            ("empty/_SUCCESS", 9),
        ] {
            objects.insert(path.to_owned(), version("e", modified_ms));
        }
        let complete = |mirrored: &[(&str, &str)]| -> Vec<(String, bool)> {
            let mirrored = super::tests::mirrored(mirrored);
            let complete = super::complete(&objects, &mirrored);
            complete.into_iter().map(|(mart, (_, is_here))| (mart.to_owned(), is_here)).collect()
        };
        let done = |is_here| vec![("done".to_owned(), is_here)];
        assert_eq!(complete(&[]), done(false));
        assert_eq!(complete(&[("done/day=1/a.parquet", "e")]), done(true));
        assert_eq!(complete(&[("done/day=1/a.parquet", "old")]), done(false));
        assert_eq!(
            complete(&[("done/day=1/a.parquet", "e"), ("done/b.parquet", "e")]),
            done(false)
        );
    }

    #[test]
    fn the_last_contents_of_a_path_are_remembered() {
        let mut object = MirroredObject::default();
        for content in ["a", "b", "a", "c", "d"] {
            object.remember(version(content, 0), digest(content));
        }
        assert_eq!(object.contents, ["d", "c", "a"].map(digest));
        assert_eq!(object.version, Some(version("d", 0)));
    }
}
