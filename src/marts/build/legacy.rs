//! The legacy file: each of its tables and views becomes a table of its own, as a mart does.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::messages::{Allowance, BuildRequest, BuildResponse, Cause, Listed, ReadFailure};
use super::pool::{PoolShared, PooledBuilder, allowance, block};
use super::table::{SMALLEST_TABLE_BYTES, TableDraft, TableKind};
use super::{BuiltTable, FileRejection, Pool};
use crate::legacy::{LegacyVersion, catalog_name};

/// A table or view of a legacy file.
#[derive(Debug, Clone)]
pub struct BuiltLegacyTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its table; or why it cannot be read, for a view that asks for what is not there.
    pub outcome: Result<Arc<BuiltTable>, String>,
}

impl Pool {
    /// Builds a table for each table and view in these schemas of a legacy file, and waits. A name
    /// that several schemas have is the first one's. In a builder of its own, besides the pool's.
    ///
    /// # Errors
    /// Why the file cannot be served; or, when that is not lasting, something that says nothing about it (no
    /// builder or no memory could be had, a builder was killed, DuckDB failed): try again later.
    pub fn build_legacy(
        &self,
        version: &LegacyVersion,
        schemas: &[String],
    ) -> Result<Vec<BuiltLegacyTable>, FileRejection> {
        let deadline = self.shared().settings.deadline(version.file.size());
        let export = Export { shared: self.shared(), version, schemas, deadline };
        let built = export.run()?;
        if built.iter().any(|table| table.outcome.is_ok()) {
            return Ok(built);
        }
        let unread = built.iter().find_map(|view| Some((view, view.outcome.as_ref().err()?)));
        Err(FileRejection::lasting(match unread {
            Some((BuiltLegacyTable { schema, name, .. }, reason)) => format!(
                "has views alone, which cannot be read without what they name ({schema}.{name}: {reason}); \
                 serve those files with PARQUET_DIR, or have dbt build tables"
            ),
            None => format!(
                "has no table in the schemas {}; name its schema in MARTD_SCHEMAS",
                schemas.join(", ")
            ),
        }))
    }
}

struct Export<'e> {
    shared: &'e PoolShared,
    version: &'e LegacyVersion,
    schemas: &'e [String],
    deadline: Duration,
}

const NONSENSE: &str = "its builder answered nonsense";

impl From<ReadFailure> for FileRejection {
    fn from(ReadFailure { cause, reason }: ReadFailure) -> Self {
        Self { reason, lasting: cause == Cause::Content }
    }
}

/// A builder that has the file attached, and what is in it.
type Attached<'e> = (PooledBuilder<'e>, Vec<Listed>);

impl<'e> Export<'e> {
    fn run(&self) -> Result<Vec<BuiltLegacyTable>, FileRejection> {
        let (known, listed) = self.attach(None)??;
        let mut kept = Some(known);
        let mut built = Vec::with_capacity(listed.len());
        for table in listed {
            let outcome = match self.build(&table, &mut kept)? {
                Ok(table) => Ok(table),
                Err(FileRejection { reason, .. }) if table.is_view => {
                    warn!(schema = table.schema, view = table.name, reason, "a view has no table");
                    Err(reason)
                }
                Err(rejection) => return Err(rejection),
            };
            built.push(BuiltLegacyTable { schema: table.schema, name: table.name, outcome });
        }
        Ok(built)
    }

    /// Starts a builder and has it attach the file. It will be able to write `draft`.
    fn attach(
        &self,
        draft: Option<&TableDraft>,
    ) -> io::Result<Result<Attached<'e>, FileRejection>> {
        let mut known = self.shared.start()?;
        let is_copied = self.version.is_copied();
        let mut descriptors = Vec::new();
        if is_copied {
            descriptors.extend(self.version.pins().map(|pin| pin.as_fd()));
        }
        descriptors.extend(draft.map(AsFd::as_fd));
        let cpu_seconds = 2 * self.deadline.as_secs() + 2;
        let request = BuildRequest::Attach {
            catalog: catalog_name(&self.version.path, self.schemas),
            schemas: self.schemas.to_vec(),
            path: (!is_copied).then(|| self.version.path.clone()),
            logs: self.version.log_endings().map(str::to_owned).collect(),
            allowance: Allowance { cpu_seconds, table_bytes: SMALLEST_TABLE_BYTES },
        };
        Ok(match known.builder.ask(&request, &descriptors, self.deadline) {
            Ok(BuildResponse::Listed(listed)) => Ok((known, listed)),
            Ok(BuildResponse::Failed(failure)) => Err(failure.into()),
            Ok(BuildResponse::Built(_)) => Err(FileRejection::passing(NONSENSE.to_owned())),
            Err(reason) => Err(FileRejection::passing(reason)),
        })
    }

    /// Builds one table. `kept` is a builder that has the file attached, before and after.
    fn build(
        &self,
        table: &Listed,
        kept: &mut Option<PooledBuilder<'e>>,
    ) -> io::Result<Result<Arc<BuiltTable>, FileRejection>> {
        let (mut stopped, mut on_disk) = (false, false);
        // How large one of them is, nobody knows; none is larger than the file but by views.
        let estimate = self.version.file.size();
        loop {
            let draft = match self.shared.settings.budget.draft(SMALLEST_TABLE_BYTES, on_disk) {
                Ok(draft) => draft,
                // More memory than now there may never be: let the reason be seen.
                Err(reason) => return Ok(Err(FileRejection::lasting(reason))),
            };
            on_disk = draft.kind() == TableKind::Disk;
            if on_disk {
                *kept = None; // it has no right to write this draft
            }
            let mut known = match kept.take() {
                Some(known) => known,
                None => match self.attach(on_disk.then_some(&draft))? {
                    Ok((known, _)) => known,
                    Err(rejection) => return Ok(Err(rejection)),
                },
            };
            let request = BuildRequest::Export {
                block: block(estimate),
                schema: table.schema.clone(),
                name: table.name.clone(),
                allowance: allowance(&draft, self.deadline),
            };
            match known.builder.ask(&request, &[draft.as_fd()], self.deadline) {
                Ok(BuildResponse::Built(report)) => {
                    if on_disk {
                        drop(known); // which ends whoever could still write a file on disk
                    } else {
                        *kept = Some(known);
                    }
                    match draft.finish(report)? {
                        Some(table) => return Ok(Ok(Arc::new(table))),
                        None => on_disk = true,
                    }
                }
                Ok(BuildResponse::Failed(failure)) => match failure.cause {
                    Cause::TooLarge if !on_disk => on_disk = true,
                    Cause::Internal if !stopped => stopped = true,
                    _ => return Ok(Err(failure.into())),
                },
                Ok(BuildResponse::Listed(_)) | Err(_) if !stopped => stopped = true,
                Ok(BuildResponse::Listed(_)) => {
                    return Ok(Err(FileRejection::passing(NONSENSE.to_owned())));
                }
                Err(reason) => return Ok(Err(FileRejection::passing(reason))),
            }
        }
    }
}
