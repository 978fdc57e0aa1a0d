//! What a builder does with DuckDB: reads a file, or a table of a legacy file, and writes a table.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use duckdb::{Config, Connection};

use super::messages::{Cause, Listed, ReadFailure};
use super::{Report, ReportColumn, TABLE};
use crate::duck::{quote_identifier, quote_literal};
use crate::limits;

/// Empty databases, by the size of their blocks; `scripts/empty-databases` writes them.
const EMPTY_16K: &[u8] = include_bytes!("empty-16k.duckdb");
const EMPTY_256K: &[u8] = include_bytes!("empty-256k.duckdb");
pub(super) const SMALL_BLOCK: u32 = 16 << 10;
pub(super) const LARGE_BLOCK: u32 = 256 << 10;
/// The database that is being built. A legacy file is attached by its stem, which is not this.
const BUILT: &str = "martd: the table that is being built";

/// DuckDB in a builder. Of no use any more after the first failure.
pub(super) struct ParquetSource {
    connection: Connection,
    scratch: PathBuf,
    /// Files so far. DuckDB may remember a file by its path, so no two have the same.
    files: usize,
    /// The descriptors of a legacy file, which DuckDB opens again by their numbers.
    legacy: Option<(String, Vec<OwnedFd>)>,
}

impl ParquetSource {
    pub(super) fn open(scratch: PathBuf) -> Result<Self, ReadFailure> {
        let config = || {
            Config::default()
                .threads(1)?
                .max_memory(&format!("{}B", limits::builder_bytes()))?
                .with("autoinstall_known_extensions", "false")?
                .with("autoload_known_extensions", "false")?
                .with("enable_external_file_cache", "false")?
                // A commit then writes to the database at once, and not to its log before that.
                .with("wal_autocheckpoint", "0B")?
                .with("temp_directory", "")
        };
        let connection = config()
            .and_then(Connection::open_in_memory_with_flags)
            .map_err(|error| ReadFailure::of(&error.to_string(), &[]))?;
        Ok(Self { connection, scratch, files: 0, legacy: None })
    }

    /// Reads every row group of a mart's Parquet files once. The parts of a directory are named as they are
    /// there, so that DuckDB finds the hive columns.
    pub(super) fn parquet(
        &mut self,
        files: &[OwnedFd],
        parts: &[String],
        draft: OwnedFd,
        block: u32,
    ) -> Result<Report, ReadFailure> {
        self.files += 1;
        let folder = self.scratch.join(format!("{}.parts", self.files));
        let paths = match parts {
            [] => files.iter().map(path_of).collect(),
            parts => {
                link_all(&folder, parts, files).map_err(|error| ReadFailure::resources(&error))?
            }
        };
        let literals: Vec<_> = paths.iter().map(|path| quote_literal(path)).collect();
        let list = literals.join(", ");
        let shown: Vec<&str> = match parts {
            [] => paths.iter().map(String::as_str).collect(),
            _ => Vec::new(), // they are relative
        };
        let failed = |error: duckdb::Error| ReadFailure::of(&error.to_string(), &shown);
        let claimed = self
            .number(&format!("SELECT sum(num_rows)::BIGINT FROM parquet_file_metadata([{list}])"))
            .map_err(failed)?;
        let is_hive = parts
            .iter()
            .any(|part| part.rsplit_once('/').is_some_and(|(folders, _)| folders.contains('=')));
        let from = format!("read_parquet([{list}], hive_partitioning = {is_hive})");
        let report = self
            .build(draft, block, &from, Some(claimed.unwrap_or_default()))
            .map_err(|error| shown.iter().fold(error, |error, path| error.without(path)))?;
        if !parts.is_empty() {
            fs::remove_dir_all(folder).map_err(|error| ReadFailure::resources(&error))?;
        }
        Ok(report)
    }

    /// Attaches a legacy file and lists what is in these schemas; a name that several have is the
    /// first one's.
    pub(super) fn attach(
        &mut self,
        catalog: &str,
        schemas: &[String],
        path: Option<&Path>,
        logs: &[String],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Vec<Listed>, ReadFailure> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => {
                // DuckDB knows a log by its name alone, and a copy in memory has none.
                let path = self.scratch.join("legacy.duckdb");
                let endings = std::iter::once("").chain(logs.iter().map(String::as_str));
                for (ending, file) in endings.zip(&descriptors) {
                    let link = format!("{}{ending}", path.display());
                    symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), link)
                        .map_err(|error| ReadFailure::resources(&error))?;
                }
                path
            }
        };
        let shown = path.display().to_string();
        self.legacy = Some((catalog.to_owned(), descriptors));
        let attach = format!(
            "ATTACH {} AS {} (READ_ONLY)",
            quote_literal(&shown),
            quote_identifier(catalog)
        );
        self.connection
            .execute_batch(&attach)
            .and_then(|()| self.list(catalog, schemas))
            .map_err(|error| ReadFailure::of(&error.to_string(), &[&shown]))
    }

    fn list(&self, catalog: &str, schemas: &[String]) -> duckdb::Result<Vec<Listed>> {
        let mut statement = self.connection.prepare(
            "SELECT table_schema, table_name, table_type = 'VIEW' FROM information_schema.tables
             WHERE table_catalog = ? AND lower(table_schema) = lower(?) ORDER BY table_name",
        )?;
        let mut listed: Vec<Listed> = Vec::new();
        for schema in schemas {
            let rows = statement.query_map([catalog, schema], |row| {
                Ok(Listed { schema: row.get(0)?, name: row.get(1)?, is_view: row.get(2)? })
            })?;
            for found in rows {
                let found = found?;
                if !listed.iter().any(|known| known.name.eq_ignore_ascii_case(&found.name)) {
                    listed.push(found);
                }
            }
        }
        Ok(listed)
    }

    /// Reads a table or view of the legacy file once.
    pub(super) fn export(
        &mut self,
        schema: &str,
        name: &str,
        draft: OwnedFd,
        block: u32,
    ) -> Result<Report, ReadFailure> {
        self.files += 1;
        let catalog = self.legacy.as_ref().map_or("", |(catalog, _)| catalog);
        let from = [catalog, schema, name].map(quote_identifier).join(".");
        self.build(draft, block, &from, None)
    }

    /// Writes the rows of `from` into the draft. A Parquet file has claimed how many there are.
    fn build(
        &self,
        draft: OwnedFd,
        block: u32,
        from: &str,
        claimed: Option<i64>,
    ) -> Result<Report, ReadFailure> {
        let empty = if block == SMALL_BLOCK { EMPTY_16K } else { EMPTY_256K };
        let draft = fs::File::from(draft);
        draft.write_all_at(empty, 0).map_err(|error| ReadFailure::resources(&error))?;
        // The database's log lies beside its name: a few KiB, gone after CHECKPOINT.
        let link = self.scratch.join(format!("{}.duckdb", self.files));
        symlink(format!("/proc/self/fd/{}", draft.as_raw_fd()), &link)
            .map_err(|error| ReadFailure::resources(&error))?;
        let shown = link.display().to_string();
        let failed = |error: duckdb::Error| ReadFailure::of(&error.to_string(), &[&shown]);
        let built = quote_identifier(BUILT);
        let table = format!("{built}.{TABLE}");
        let run = |sql: &str| self.connection.execute_batch(sql).map_err(failed);
        run(&format!(
            "ATTACH {} AS {built} (STORAGE_VERSION 'v1.5.0', BLOCK_SIZE {block})",
            quote_literal(&shown),
        ))?;
        run(&format!("CREATE TABLE {table} AS FROM {from}"))?;
        let rows = self.number(&format!("SELECT count(*) FROM {table}")).map_err(failed)?;
        let rows = rows.unwrap_or_default();
        if let Some(claimed) = claimed.filter(|claimed| *claimed != rows) {
            return Err(ReadFailure::content(format!("holds {rows} rows, but claims {claimed}")));
        }
        let columns = self.columns().map_err(failed)?;
        let may_be_empty = claimed == Some(1);
        let is_null_row = may_be_empty && self.is_null_alone(&table, &columns).map_err(failed)?;
        run(&format!("CHECKPOINT {built}"))?;
        run(&format!("DETACH {built}"))?;
        fs::remove_file(&link).map_err(|error| ReadFailure::resources(&error))?;
        Ok(Report { rows: rows.unsigned_abs(), columns, is_null_row })
    }

    fn columns(&self) -> duckdb::Result<Vec<ReportColumn>> {
        let mut statement = self.connection.prepare(
            "SELECT column_name, data_type FROM duckdb_columns()
             WHERE database_name = ? AND table_name = ? ORDER BY column_index",
        )?;
        let rows = statement.query_map([BUILT, TABLE], |row| {
            Ok(ReportColumn { name: row.get(0)?, ty: row.get(1)? })
        })?;
        rows.collect()
    }

    /// Whether the one row of a table has NULLs alone.
    fn is_null_alone(&self, table: &str, columns: &[ReportColumn]) -> duckdb::Result<bool> {
        let nulls: Vec<_> = columns
            .iter()
            .map(|column| format!("{} IS NULL", quote_identifier(&column.name)))
            .collect();
        let sql = format!("SELECT count(*) FROM {table} WHERE {}", nulls.join(" AND "));
        Ok(self.number(&sql)? == Some(1))
    }

    /// The one number that a statement answers; `None` when there is none.
    fn number(&self, sql: &str) -> duckdb::Result<Option<i64>> {
        match self.connection.query_row(sql, [], |row| row.get(0)) {
            Err(duckdb::Error::QueryReturnedNoRows) => Ok(None),
            other => other,
        }
    }
}

impl ReadFailure {
    pub(super) fn content(reason: String) -> Self {
        Self { cause: Cause::Content, reason }
    }

    pub(super) fn resources(error: &std::io::Error) -> Self {
        Self::of(&format!("IO Error: {error}"), &[])
    }

    /// What DuckDB says, without these paths.
    fn of(message: &str, paths: &[&str]) -> Self {
        // By DuckDB's own word at the beginning, which no content can write.
        let begins = |kinds: &[&str]| kinds.iter().any(|kind| message.starts_with(kind));
        let is_internal = begins(&["INTERNAL Error", "FATAL Error"]);
        let is_commit = begins(&["TransactionContext Error"]); // the log, and not the content
        let is_input_or_output = is_commit || begins(&["IO Error"]);
        let cause = if (is_internal || is_input_or_output) && message.contains("File too large") {
            Cause::TooLarge
        } else if is_internal {
            Cause::Internal
        } else if is_commit
            || begins(&["Out of Memory Error"])
            || (is_input_or_output && is_of_the_machine(message))
        {
            Cause::Resources
        } else {
            Cause::Content
        };
        // After the first line of the one, DuckDB advises settings that builders do not have.
        let end = if begins(&["Out of Memory Error"]) { "\n" } else { "\n\nStack Trace" };
        let reason = message.split(end).next().unwrap_or_default();
        // The statement is martd's own.
        let reason = reason.split("\n\nLINE 1: ").next().unwrap_or_default().trim().to_owned();
        let failure = Self { cause, reason };
        paths.iter().fold(failure, |failure, path| failure.without(path))
    }

    /// The same without this path in its reason.
    fn without(mut self, path: &str) -> Self {
        self.reason = self.reason.replace(path, "the file");
        const ENDS: [char; 7] = [' ', '\n', '"', '\'', '(', ')', ','];
        let mut shown = String::with_capacity(self.reason.len());
        for word in self.reason.split_inclusive(ENDS) {
            let name = word.trim_end_matches(ENDS);
            if name.starts_with('/') && name[1..].contains('/') {
                shown.push_str("the file");
                shown.push_str(&word[name.len()..]);
            } else {
                shown.push_str(word);
            }
        }
        self.reason = shown;
        self
    }
}

/// How DuckDB opens a file that it is given as a descriptor.
fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Gives files these paths in a folder, which becomes the working directory: what leads there may look like
/// a hive column, too. Returns the paths as DuckDB reads them.
fn link_all(folder: &Path, parts: &[String], files: &[OwnedFd]) -> io::Result<Vec<String>> {
    fs::create_dir(folder)?;
    std::env::set_current_dir(folder)?;
    let mut paths = Vec::with_capacity(parts.len());
    for (part, file) in parts.iter().zip(files) {
        // DuckDB would take these for a pattern, and decodes the values of hive columns.
        let part = part.replace('*', "%2A").replace('?', "%3F").replace('[', "%5B");
        let path = format!("./{part}");
        if let Some((folders, _)) = path.rsplit_once('/') {
            fs::create_dir_all(folders)?;
        }
        symlink(path_of(file), &path)?;
        paths.push(path);
    }
    Ok(paths)
}

/// Whether an input or output error is about the machine and not about a file that is cut.
fn is_of_the_machine(message: &str) -> bool {
    const SAYS_SO: [&str; 8] = [
        "No space left",
        "Could not set lock on file",
        "Cannot allocate memory",
        "Too many open files",
        "Input/output error",
        "Disk quota exceeded",
        "Permission denied",
        "Read-only file system",
    ];
    SAYS_SO.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_empty_databases_open() {
        for (empty, block) in [(EMPTY_16K, SMALL_BLOCK), (EMPTY_256K, LARGE_BLOCK)] {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            fs::write(file.path(), empty).expect("write");
            let connection = Connection::open_in_memory().expect("DuckDB");
            let path = file.path().display();
            let attach =
                format!("ATTACH '{path}' AS v; CREATE TABLE v.t AS SELECT 1::VARIANT AS a");
            connection.execute_batch(&attach).expect("of storage version v1.5.0");
            let size = "SELECT block_size FROM pragma_database_size() WHERE database_name = 'v'";
            let size = connection.query_row(size, [], |row| row.get::<_, i64>(0));
            assert_eq!((empty.len(), size), (12 << 10, Ok(i64::from(block))));
        }
    }

    #[test]
    fn a_reason_has_no_paths_and_no_stack() {
        let failure = ReadFailure::of(
            "INTERNAL Error: in \"/proc/self/fd/7\" and (/a/b.so:1), at 1/2\n\nStack Trace:\n/lib/x",
            &["/proc/self/fd/7"],
        );
        assert_eq!(failure.cause, Cause::Internal);
        assert_eq!(failure.reason, "INTERNAL Error: in \"the file\" and (the file), at 1/2");
        let memory =
            "Out of Memory Error: failed to allocate\n\nPossible solutions:\n* SET threads=X";
        assert_eq!(ReadFailure::of(memory, &[]).reason, "Out of Memory Error: failed to allocate");
        let own =
            "Binder Error: Hive partition mismatch\n\nLINE 1: ... FROM read_parquet(['x'])\n  ^";
        assert_eq!(ReadFailure::of(own, &[]).reason, "Binder Error: Hive partition mismatch");
        let written = "Conversion Error: could not convert 'IO Error: File too large'";
        assert_eq!(ReadFailure::of(written, &[]).cause, Cause::Content);
    }
}
