//! What was vouched for and what was not: a table on a terminal, JSON elsewhere.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use bytesize::ByteSize;
use serde_json::json;

use super::{EXIT_NO, EXIT_WARN, Unserved};
use crate::commands::table::{Cell, TextTable, Tone, colours};
use crate::ledger::{File, Outstanding};
use crate::mirror::Uploaded;

/// What a command did.
#[derive(Default)]
pub(super) struct PublishReport {
    /// The build that is recorded.
    pub(super) build: Option<String>,
    /// Its record.
    pub(super) record: Option<PathBuf>,
    /// Whether that was there, and says the same.
    pub(super) already: bool,
    /// How many nodes it tells of.
    pub(super) ran: usize,
    vouched: Vec<(String, Vec<File>)>,
    refused: Vec<(String, String)>,
    pub(super) unserved: Vec<Unserved>,
    /// What holds everything, of this build and of those before it.
    pub(super) outstanding: Vec<Outstanding>,
    /// How many records there are fewer.
    pub(super) compacted: Option<usize>,
    /// What was sent to an object store.
    pub(super) uploaded: Option<Uploaded>,
}

impl PublishReport {
    pub(super) fn vouched(&mut self, name: &str, files: &[File]) {
        self.vouched.push((name.to_owned(), files.to_vec()));
    }

    pub(super) fn refused(&mut self, name: &str, reason: &str) {
        self.refused.push((name.to_owned(), reason.to_owned()));
    }

    /// 1 when a file was refused, 4 when there was nothing to vouch for.
    pub(super) fn code(&self) -> ExitCode {
        match (self.refused.is_empty(), self.vouched.is_empty() && self.ran == 0) {
            (false, _) => EXIT_NO.into(),
            (true, true) if self.compacted.is_none() && self.uploaded.is_none() => EXIT_WARN.into(),
            _ => ExitCode::SUCCESS,
        }
    }

    /// What is done and what is not when not all was sent, and how to go on.
    pub(super) fn unsent(&self, url: &str) -> String {
        let records = self.uploaded.as_ref().map_or(0, |sent| sent.records);
        let done = match (&self.build, records) {
            (Some(build), 0) => format!("build {build} is recorded here, and is not in the bucket"),
            (Some(build), _) => {
                format!("build {build} is recorded here, and not all records are in the bucket")
            }
            (None, _) => "what is recorded here is not all in the bucket".to_owned(),
        };
        format!("{done}; once that is mended, martd publish --to {url} --recorded sends the rest")
    }

    pub(super) fn text(&self) -> String {
        if std::io::stdout().is_terminal() { self.table() } else { format!("{}\n", self.json()) }
    }

    fn json(&self) -> serde_json::Value {
        // Of several files, the record has the hashes.
        let vouched = self.vouched.iter().map(|(name, files)| {
            let sha256 = (files.len() == 1).then(|| files[0].sha256);
            json!({"name": name, "bytes": bytes(files), "files": files.len(), "sha256": sha256})
        });
        let refused = self.refused.iter();
        let unserved = self.unserved.iter();
        json!({
            "build": self.build,
            "record": self.record,
            "already": self.already,
            "vouched": vouched.collect::<Vec<_>>(),
            "refused": refused.map(|(name, reason)| json!({"name": name, "reason": reason})).collect::<Vec<_>>(),
            "not_served": unserved.map(|node| json!({"id": node.id, "reason": node.reason})).collect::<Vec<_>>(),
            "outstanding": self.outstanding,
            "compacted": self.compacted,
            "uploaded": self.uploaded.as_ref().map(|sent| json!({
                "files": sent.files, "bytes": sent.bytes, "records": sent.records,
            })),
        })
    }

    fn table(&self) -> String {
        let mut table = TextTable::new(["mart", "", "size", ""], &[2]);
        for (name, files) in &self.vouched {
            let size = ByteSize::b(bytes(files)).into();
            let what = match &**files {
                [file] => file.sha256.short()[..12].to_owned(),
                files => format!("{} files", files.len()),
            };
            let vouched = Cell::new("vouched for", Tone::Good);
            table.row(vec![name.into(), vouched, size, what.into()]);
        }
        let refused =
            self.refused.iter().map(|(name, reason)| (name, "refused", Tone::Bad, reason));
        let unserved = self.unserved.iter();
        let unserved = unserved.map(|node| (&node.id, "not served", Tone::Warn, &node.reason));
        for (name, word, tone, reason) in refused.chain(unserved) {
            table.row(vec![name.into(), Cell::new(word, tone), "".into(), Cell::remark(reason)]);
        }
        let mut text = match self.vouched.len() + self.refused.len() + self.unserved.len() {
            0 => String::new(),
            _ => table.render(colours()),
        };
        for node in &self.outstanding {
            let message = node.message.as_deref().unwrap_or_default();
            text.push_str(&format!("holds: {} ({}) {message}\n", node.unique_id, node.status));
        }
        if let Some(build) = &self.build {
            let already = if self.already { " already, with the same files" } else { "" };
            let held = match self.outstanding.is_empty() {
                true => "",
                false => ", and held until the above succeeds",
            };
            text.push_str(&format!("build {build} is recorded{already}{held}\n"));
        }
        if let Some(fewer) = self.compacted {
            text.push_str(&format!("{fewer} records fewer\n"));
        }
        if let Some(Uploaded { files, bytes, records, .. }) = &self.uploaded {
            let size = ByteSize::b(*bytes);
            text.push_str(&format!("sent: {files} files ({size}) and {records} records\n"));
        }
        text
    }
}

fn bytes(files: &[File]) -> u64 {
    files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
}
