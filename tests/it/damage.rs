//! A corpus of damaged Parquet files: what is damaged is never served, nothing that it does to a
//! builder reaches martd, and the last good version stays.
//!
//! Most of the corpus meets the code that judges files, with real builders; a sample of it
//! then goes through a running martd.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use duckdb::Connection;
use fastrand::Rng;
use martd::mart_pin::{MartPin, PinnedFile};
use martd::marts::build::{self, Footer, Pool, TableBudget, has_tail};
use martd::pin::{Budget, Pin};

use crate::harness::{Martd, Root, names, program, seed};
use crate::writers::put;

/// Mutants of an intact file by random damage, beside those at every chosen place.
const RANDOM_MUTANTS: usize = 520;
/// The same of a file with 2,000 columns, which take their time.
const RANDOM_MUTANTS_OF_WIDE: usize = 40;
/// Mutants are judged in batches, as a directory of that many new files would be.
const BATCH: usize = 256;
/// How many of each outcome a running martd is given.
const SAMPLE: usize = 150;

/// A whole Parquet file, from which mutants are made.
struct Intact {
    name: &'static str,
    bytes: Vec<u8>,
    /// Where column chunks and their data pages begin and end.
    places: BTreeSet<usize>,
    shown: Contents,
}

/// What a client can see of a file.
#[derive(PartialEq, Eq)]
struct Contents {
    columns: Vec<(String, String)>,
    /// How many rows, and the sum of their hashes.
    rows: String,
}

struct Mutant {
    of: usize,
    damage: String,
    bytes: Vec<u8>,
    /// Whether every reader can tell that the file is damaged.
    obvious: bool,
}

/// A scratch directory with a DuckDB that writes and reads Parquet.
struct Bench {
    duckdb: Connection,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let duckdb = Connection::open_in_memory().expect("DuckDB opens");
        duckdb.execute_batch("SET threads = 1; SET parquet_metadata_cache = false").expect("set");
        Self { duckdb, dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.parquet"))
    }

    fn intact(&self, name: &'static str, select: &str, options: &str) -> Intact {
        let path = self.file(name);
        let path_text = path.display();
        let sql = format!("COPY ({select}) TO '{path_text}' (FORMAT parquet{options})");
        self.duckdb.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let sql = format!(
            "SELECT unnest([coalesce(dictionary_page_offset, data_page_offset), data_page_offset,
               coalesce(dictionary_page_offset, data_page_offset) + total_compressed_size])
             FROM parquet_metadata('{path_text}')"
        );
        let mut statement = self.duckdb.prepare(&sql).expect("prepare");
        let places = statement
            .query_map([], |row| row.get::<_, i64>(0))
            .expect("query")
            .map(|place| place.expect("a number") as usize)
            .collect();
        let shown = self.contents(&path).expect("DuckDB reads what it wrote");
        Intact { name, bytes: fs::read(&path).expect("read"), places, shown }
    }

    fn contents(&self, path: &Path) -> Result<Contents, duckdb::Error> {
        let file = path.display();
        let sql = format!("SELECT column_name, column_type FROM (DESCRIBE FROM '{file}')");
        let mut statement = self.duckdb.prepare(&sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let columns = rows.collect::<Result<_, _>>()?;
        let sql =
            format!("SELECT count(*) || ' ' || coalesce(sum(hash(t)::HUGEINT), 0) FROM '{file}' t");
        Ok(Contents { columns, rows: self.duckdb.query_row(&sql, [], |row| row.get(0))? })
    }

    /// What the file shows to a client, compared with the intact one.
    fn compare(&self, intact: &Intact, mutant: &Mutant) -> Result<Shown, duckdb::Error> {
        let bad = self.file("mutant");
        fs::write(&bad, &mutant.bytes).expect("write");
        let shown = self.contents(&bad)?;
        if shown.columns != intact.shown.columns {
            return Ok(Shown::OtherColumns);
        }
        if shown.rows != intact.shown.rows {
            return Ok(Shown::OtherValues);
        }
        Ok(Shown::Same)
    }
}

/// What an accepted mutant shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Same,
    OtherValues,
    OtherColumns,
}

fn intact_files(bench: &Bench) -> Vec<Intact> {
    let mixed = "SELECT i, i % 7 AS few, 'text ' || i % 11 AS text, i / 3 AS ratio, i % 2 = 0 AS even,
        CASE WHEN i % 5 = 0 THEN NULL ELSE i * 1.25::DECIMAL(18, 2) END AS amount,
        DATE '2024-01-01' + (i % 365)::INTEGER AS day, TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND AS at,
        md5(i::VARCHAR) AS noise FROM range";
    let nested = "SELECT i, [i, i + 1, NULL] AS list, {'a': i, 'b': {'c': [i::VARCHAR]}} AS struct,
        MAP {i: 'x' || i} AS map, [[i], [], NULL] AS lists FROM range";
    // Lists nested 30 deep are decoded in exponential time by DuckDB: nobody serves those.
    let deep = format!(
        "SELECT {}i{} AS lists, {}i{} AS structs FROM range(20) t(i)",
        "[".repeat(6),
        "]".repeat(6),
        "{'x': ".repeat(40),
        "}".repeat(40)
    );
    let wide: Vec<String> = (0..2000).map(|column| format!("{column} AS c{column}")).collect();
    vec![
        bench.intact("plain", &format!("{mixed}(300) t(i)"), ", COMPRESSION uncompressed"),
        bench.intact("snappy", &format!("{mixed}(300) t(i)"), ""),
        bench.intact("zstd", &format!("{mixed}(300) t(i)"), ", COMPRESSION zstd"),
        bench.intact("gzip", &format!("{mixed}(300) t(i)"), ", COMPRESSION gzip"),
        bench.intact("v2", &format!("{mixed}(300) t(i)"), ", PARQUET_VERSION v2"),
        bench.intact("groups", &format!("{mixed}(5000) t(i)"), ", ROW_GROUP_SIZE 2048"),
        bench.intact("nested", &format!("{nested}(100) t(i)"), ""),
        bench.intact("deep", &deep, ""),
        bench.intact("empty", &format!("{mixed}(0) t(i)"), ""),
        bench.intact("wide", &format!("SELECT {}", wide.join(", ")), ""),
    ]
}

/// Where the footer begins: its length stands before the last magic.
fn footer_start(bytes: &[u8]) -> usize {
    let [a, b, c, d] = bytes[bytes.len() - 8..bytes.len() - 4] else { panic!("four bytes") };
    bytes.len() - 8 - u32::from_le_bytes([a, b, c, d]) as usize
}

fn mutants_of(of: usize, intact: &Intact, random: &mut Rng) -> Vec<Mutant> {
    let (whole, size) = (&intact.bytes, intact.bytes.len());
    let footer = footer_start(whole);
    let mut mutants = Vec::new();
    let mut add = |damage: String, obvious: bool, bytes: Vec<u8>| {
        if bytes != *whole {
            mutants.push(Mutant { of, damage, bytes, obvious });
        }
    };

    // Truncation at every kind of place.
    let mut ends: BTreeSet<usize> = intact.places.iter().take(100).copied().collect();
    ends.extend((0..16).chain(footer.saturating_sub(2)..footer + 3).chain(size - 12..size));
    ends.extend((0..40).map(|_| random.usize(0..size)));
    for end in ends {
        add(format!("cut at {end}"), true, whole[..end].to_vec());
    }
    // Lengths, magics, and the encrypted footer that martd cannot read.
    for length in [0, 1, size as u32 - 12, size as u32 - 11, size as u32, i32::MAX as u32, u32::MAX]
    {
        let mut bytes = whole.clone();
        bytes[size - 8..size - 4].copy_from_slice(&length.to_le_bytes());
        add(format!("footer length {length}"), true, bytes);
    }
    for (place, magic) in [(size - 4, b"PARE"), (size - 4, b"PAR2"), (0, b"PARE"), (0, b"\0\0\0\0")]
    {
        let mut bytes = whole.clone();
        bytes[place..place + 4].copy_from_slice(magic);
        add(format!("magic {magic:?} at {place}"), true, bytes);
    }
    add("appended zeros".to_owned(), true, [whole.as_slice(), &[0; 512]].concat());

    let count = if intact.name == "wide" { RANDOM_MUTANTS_OF_WIDE } else { RANDOM_MUTANTS };
    for _ in 0..count {
        let mut bytes = whole.clone();
        let in_footer = random.bool() || footer <= 8;
        let region = if in_footer { footer..size - 8 } else { 4..footer };
        let place = random.usize(region.clone());
        let damage = match random.usize(0..6) {
            0..3 => {
                let flips = random.usize(1..4);
                for _ in 0..flips {
                    let place = random.usize(region.clone());
                    bytes[place] ^= 1 << random.usize(0..8);
                }
                format!("{flips} bits")
            }
            3 => {
                // A length or an offset in Thrift's encoding becomes huge.
                let end = (place + random.usize(4..10)).min(region.end);
                bytes[place..end].fill(0xff);
                bytes[end - 1] = 0x7f;
                format!("a huge number at {place}")
            }
            4 => {
                let end = (place + random.usize(1..512)).min(region.end);
                bytes[place..end].fill(0);
                format!("zeros at {place}..{end}")
            }
            _ => {
                let length = random.usize(1..64).min(region.end - place);
                let from = random.usize(0..size - length);
                bytes.copy_within(from..from + length, place);
                format!("{length} bytes of {from} at {place}")
            }
        };
        add(
            format!("{damage} in the {}", if in_footer { "footer" } else { "pages" }),
            false,
            bytes,
        );
    }
    mutants
}

/// What martd says of a file: it passes all that a file in the directory has to pass.
enum Judgement {
    Refused(String),
    ToBuild(Arc<MartPin>),
}

fn judge(bench: &Bench, bytes: &[u8], budget: &Arc<Budget>) -> io::Result<Judgement> {
    let path = bench.file("judged");
    fs::write(&path, bytes)?;
    let file = File::open(&path)?;
    if let Err(reason) = has_tail(&file)? {
        return Ok(Judgement::Refused(reason));
    }
    let pin = Pin::new(file, budget).map_err(io::Error::other)?;
    Ok(match Footer::read(&pin) {
        Ok(_) => {
            let file = PinnedFile { path: "judged.parquet".to_owned(), pin: Arc::new(pin) };
            Judgement::ToBuild(Arc::new(MartPin::new(vec![file])))
        }
        Err(error) => Judgement::Refused(error.to_string()),
    })
}

fn judge_all(bench: &Bench, mutants: &[Mutant]) -> Vec<Result<(), String>> {
    let budget = Budget::new(1 << 30);
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let tables = TableBudget::new(1 << 30, None);
    let mut settings = build::BuilderSettings::new(program().into(), scratch.path().into(), tables)
        .expect("threads");
    settings.deadline = Duration::from_secs(2); // some make DuckDB go round in circles
    let pool = Pool::start(settings, |_| {}).expect("threads");
    let mut verdicts = Vec::with_capacity(mutants.len());
    for batch in mutants.chunks(BATCH) {
        let judged: Vec<Judgement> = batch
            .iter()
            .map(|mutant| judge(bench, &mutant.bytes, &budget).expect("can be judged"))
            .collect();
        let pins = judged.iter().filter_map(|judged| match judged {
            Judgement::ToBuild(pin) => Some(pin),
            Judgement::Refused(_) => None,
        });
        let built = pool.build_all(pins);
        verdicts.extend(judged.iter().map(|judged| match judged {
            Judgement::Refused(reason) => Err(reason.clone()),
            Judgement::ToBuild(pin) => match &built[&pin.hash()] {
                Ok(_) => Ok(()),
                Err(rejection) => Err(rejection.reason.clone()),
            },
        }));
    }
    drop(pool);
    assert_eq!(fs::read_dir(scratch.path()).expect("readable").count(), 0, "left behind");
    verdicts
}

#[test]
fn no_damaged_file_kills_martd_or_is_served() {
    let started = Instant::now();
    let mut random = Rng::with_seed(seed());
    let bench = Bench::new();
    let intact = intact_files(&bench);
    let originals = (0..).zip(&intact).map(|(of, file)| Mutant {
        of,
        damage: "none".to_owned(),
        bytes: file.bytes.clone(),
        obvious: false,
    });
    let originals: Vec<Mutant> = originals.collect();
    for (original, verdict) in originals.iter().zip(judge_all(&bench, &originals)) {
        verdict.unwrap_or_else(|reason| panic!("{}: {reason}", intact[original.of].name));
    }

    let mutants: Vec<Mutant> = intact
        .iter()
        .enumerate()
        .flat_map(|(of, file)| mutants_of(of, file, &mut random))
        .collect();
    let judging = Instant::now();
    let verdicts = judge_all(&bench, &mutants);
    println!("{} mutants judged in {:?}", mutants.len(), judging.elapsed());
    assert!(mutants.len() >= 5_000);

    let mut shown: BTreeMap<Shown, usize> = BTreeMap::new();
    let mut stopped = 0;
    let (mut refused, mut accepted) = (Vec::new(), Vec::new());
    for (mutant, verdict) in mutants.iter().zip(&verdicts) {
        let what = || format!("{} of {}", mutant.damage, intact[mutant.of].name);
        match verdict {
            Err(reason) => {
                stopped += usize::from(reason.contains("process that read it"));
                refused.push(mutant);
            }
            Ok(_) => {
                assert!(!mutant.obvious, "accepted: {}", what());
                let found = bench.compare(&intact[mutant.of], mutant);
                let found = found.unwrap_or_else(|error| panic!("{}: {error}", what()));
                *shown.entry(found).or_default() += 1;
                accepted.push(mutant);
            }
        }
    }
    println!("refused {}, of which {stopped} stopped their builder", refused.len());
    println!("accepted {}: {shown:?}", accepted.len());
    println!("compared after {:?}", started.elapsed());

    through_martd(&intact, &thin_out(&refused), &thin_out(&accepted));
    println!("done after {:?}", started.elapsed());
}

/// A file of nothing but a footer, which is given in Thrift's compact encoding.
fn footer_alone(footer: &[u8]) -> Vec<u8> {
    let length = u32::try_from(footer.len()).expect("small").to_le_bytes();
    [b"PAR1", footer, &length, b"PAR1"].concat()
}

/// The footer of a file with this schema, which claims `rows` (at most 63) rows in no row group.
fn footer(elements: usize, schema: &[u8], rows: u8) -> Vec<u8> {
    let mut size = Vec::new();
    let mut left = elements;
    while left > 0x7f {
        size.push(left as u8 | 0x80);
        left >>= 7;
    }
    size.push(left as u8);
    // version = 1; schema = list of structs; num_rows; row_groups = an empty list of structs.
    [&[0x15, 0x02, 0x19, 0xfc], size.as_slice(), schema, &[0x16, rows << 1, 0x19, 0x0c, 0x00]]
        .concat()
}

/// A schema element: its name, and how many children it has.
fn group(children: u8) -> [u8; 6] {
    [0x48, 0x01, b'g', 0x15, children << 1, 0x00]
}

#[test]
fn footers_made_to_break_their_reader_are_refused() {
    let bench = Bench::new();
    // required int32 x
    let leaf = [0x15, 0x02, 0x25, 0x00, 0x18, 0x01, b'x', 0x00];
    let nested = |depth: usize| {
        let groups: Vec<u8> = (0..depth).flat_map(|_| group(1)).collect();
        footer(depth + 1, &[groups.as_slice(), &leaf].concat(), 0)
    };
    let huge_string = [0x48, 0xff, 0xff, 0xff, 0xff, 0x07, b'g', 0x15, 0x02, 0x00];
    for (what, footer) in [
        ("no columns", footer(1, &group(0), 5)),
        ("no schema", footer(0, &[], 0)),
        ("a group whose child is missing", footer(1, &group(1), 0)),
        ("2^31 schema elements", footer(0x7fff_ffff, &group(1), 0)),
        ("a name of 2 GiB", footer(2, &[huge_string.as_slice(), &leaf].concat(), 0)),
        ("more rows than its row groups", footer(2, &[group(1).as_slice(), &leaf].concat(), 9)),
        ("groups nested 1,000 deep", nested(1_000)),
        ("groups nested 1,000,000 deep", nested(1_000_000)),
    ] {
        let (of, obvious) = (0, true);
        let mutant = Mutant { of, damage: what.to_owned(), bytes: footer_alone(&footer), obvious };
        match judge_all(&bench, &[mutant]).remove(0) {
            Err(reason) => println!("{what}: {reason}"),
            Ok(()) => panic!("{what}: accepted"),
        }
    }
}

/// Every so many of a list.
fn thin_out<'m>(mutants: &[&'m Mutant]) -> Vec<&'m Mutant> {
    mutants.iter().step_by(mutants.len().div_ceil(SAMPLE).max(1)).copied().collect()
}

/// All mutants replace good marts at once; those that are refused leave the good ones served.
fn through_martd(intact: &[Intact], refused: &[&Mutant], accepted: &[&Mutant]) {
    let root = Root::new();
    let mart = |kind: &str, index: usize| root.mart(&format!("{kind}{index:04}.parquet"));
    let all = || {
        let refused = refused.iter().enumerate().map(|(index, m)| (mart("refused", index), *m));
        refused.chain(accepted.iter().enumerate().map(|(index, m)| (mart("accepted", index), *m)))
    };
    for (path, mutant) in all() {
        put(path, &intact[mutant.of].bytes);
    }
    put(root.mart("zz_last.parquet"), &intact[0].bytes);
    let martd = Martd::start(root.path());
    let count = refused.len() + accepted.len() + 1;
    let marts = |snapshot: &serde_json::Value| snapshot["marts"].as_array().map_or(0, Vec::len);
    let before = martd.wait_snapshot("all marts", |snapshot| marts(snapshot) == count);

    for (path, mutant) in all() {
        put(path, &mutant.bytes);
    }
    let faults = |snapshot: &serde_json::Value| {
        let mut files = names(&snapshot["rejected"], "file");
        files.extend(names(&snapshot["landing"], "file"));
        files.iter().filter(|file| file.starts_with("refused")).count()
    };
    let after = martd.wait_snapshot("all mutants to be judged", |s| faults(s) == refused.len());
    assert_eq!(marts(&after), count, "a mart was dropped");
    let facts = |snapshot: &serde_json::Value| {
        let list = snapshot["marts"].as_array().expect("marts").clone();
        list.into_iter()
            .filter(|mart| mart["name"].as_str().is_some_and(|n| n.starts_with("refused")))
            .collect::<Vec<_>>()
    };
    assert_eq!(facts(&after), facts(&before), "a refused file took the place of a good one");
    for index in 0..refused.len() {
        let answer = martd.query(&format!("SELECT count(*) FROM mart.refused{index:04}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for index in 0..accepted.len() {
        let answer = martd.query(&format!("FROM mart.accepted{index:04} LIMIT 10"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    put(root.mart("zz_last.parquet"), &intact[1].bytes);
    martd.wait_snapshot("the next good file", |s| {
        s["generation"].as_u64() > after["generation"].as_u64()
    });
    assert_eq!(martd.get("/livez").status, 200);
}
