//! What the steps between a file and an answer cost, one by one: `cargo bench`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use martd::duck::Database;
use martd::encode::postgres::Form;
use martd::encode::{Coding, Codings, Encoder, Format, Summary};
use martd::engine::{
    Engine, EngineSettings, Head, Parameters, Principal, ProcessSettings, Query, QueryJob, Scope,
    Table, TableSpec,
};
use martd::mart_dir::MartDir;
use martd::mart_pin::{MartPin, PinnedFile};
use martd::marts::build::{self, Pool, TableBudget};
use martd::pin::{Budget, Pin};
use martd::sql_gate::Validator;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// As many as DuckDB hands out at once.
const ROWS: usize = 2_048;
const SCHEMA: &str = "mart";
const SMALL: &str = "SELECT * FROM mart.m0 WHERE id < 40";

fn main() {
    divan::main();
}

/// A directory with this many marts.
fn marts(count: usize) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mart = dir.path().join(SCHEMA);
    fs::create_dir(&mart).expect("a directory");
    let first = mart.join("m0.parquet");
    let copy = format!(
        "COPY (SELECT i AS id, uuid() AS key, DATE '2026-01-01' + i::INT AS day,
                      TIMESTAMP '2026-01-01' + to_seconds(i) AS at, i * 1.25::DECIMAL(18,2) AS amount,
                      i / 7 AS part, i % 2 = 0 AS even, 'tag ' || i % 10 AS tag,
                      'a longer text of number ' || i AS note, 'EUR' AS currency
               FROM range({ROWS}) t(i)) TO '{}'",
        first.display()
    );
    let database = duckdb::Connection::open_in_memory().expect("DuckDB opens");
    database.execute_batch(&copy).expect("a mart");
    for number in 1..count {
        fs::copy(&first, mart.join(format!("m{number}.parquet"))).expect("a copy");
    }
    dir
}

/// Marts of one content, as all of these have; their table is attached once.
fn tables(dir: &TempDir, count: usize) -> Vec<Table> {
    let budget = TableBudget::new(u64::MAX, None);
    let program = env!("CARGO_BIN_EXE_martd").into();
    let builders =
        build::BuilderSettings::new(program, dir.path().to_owned(), budget).expect("threads");
    let pool = Pool::start(builders, |_| {}).expect("threads");
    let file = File::open(dir.path().join(SCHEMA).join("m0.parquet"));
    let pin = Arc::new(Pin::new(file.expect("a mart"), &Budget::new(u64::MAX)).expect("a pin"));
    let pin = Arc::new(MartPin::new(vec![PinnedFile { path: "m0.parquet".to_owned(), pin }]));
    let Some(Ok(table)) = pool.build_all([&pin]).remove(&pin.hash()) else {
        panic!("the mart has no table")
    };
    let mart = |number: usize| Table {
        spec: TableSpec {
            number: table.number(),
            name: format!("m{number}"),
            schema: None,
            columns: table.report().columns.clone(),
            is_empty: false,
            description: String::new(),
            meanings: Vec::new(),
        },
        table: Arc::clone(&table),
    };
    (0..count).map(mart).collect()
}

fn engine(runtime: &Runtime) -> Engine {
    let process = ProcessSettings {
        memory_bytes: 256 << 20,
        data_bytes: 4 << 30,
        threads: 1,
        time_zone: "UTC".to_owned(),
        schemas: vec![SCHEMA.to_owned()],
        scoping: None,
        table_dir: None,
        postgres: false,
    };
    let program = env!("CARGO_BIN_EXE_martd").into();
    let settings = EngineSettings { program, queries: 1, process };
    let spawner = martd::spawner::Spawner::start().expect("a thread");
    Engine::start(settings, spawner, runtime.handle()).expect("an engine")
}

#[divan::bench(args = [11, 1_000])]
fn scan(bencher: Bencher, count: usize) {
    let dir = marts(count);
    let mart_dir = MartDir::new(dir.path()).open().expect("a directory");
    bencher.bench(|| mart_dir.scan(|_| false, |_, _| {}).expect("a scan"));
}

#[divan::bench]
fn pin(bencher: Bencher) {
    let dir = marts(1);
    let path = dir.path().join(SCHEMA).join("m0.parquet");
    let budget = Budget::new(u64::MAX);
    bencher.bench(|| Pin::new(File::open(&path).expect("a mart"), &budget).expect("a pin"));
}

#[divan::bench(args = [11, 1_000], sample_count = 20)]
fn publish(bencher: Bencher, count: usize) {
    let dir = marts(count);
    let tables = tables(&dir, count);
    let runtime = Runtime::new().expect("threads");
    let engine = engine(&runtime);
    bencher.bench(|| engine.publish("id", tables.clone()).expect("it serves them"));
}

#[divan::bench]
fn validate_a_new_statement(bencher: Bencher) {
    let validator = Validator::new().expect("a validator");
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        validator.validate(&format!(
            "SELECT tag, sum(amount) FROM mart.m0 WHERE id < {number} GROUP BY tag"
        ))
    });
}

#[divan::bench]
fn recall_a_statement(bencher: Bencher) {
    let validator = Validator::new().expect("a validator");
    validator.validate(SMALL).expect("it may be asked");
    bencher.bench(|| validator.validate(black_box(SMALL)));
}

/// A statement of 40 rows, on a connection that has it prepared, to the engine's process and back.
#[divan::bench]
fn query(bencher: Bencher) {
    let dir = marts(1);
    let runtime = Runtime::new().expect("threads");
    let engine = engine(&runtime);
    let lease = engine.publish("id", tables(&dir, 1)).expect("it serves them");
    let query = || Query {
        lease: Arc::clone(&lease),
        job: QueryJob {
            sql: SMALL.to_owned(),
            moment: None,
            parameters: Parameters::default(),
            scope: Scope::AllRows,
            format: Format::Json,
            binary: Vec::new(),
            codings: Codings { best: Coding::Identity, identity: true },
            limit: None,
            max_rows: 10_000,
            max_bytes: 1 << 30,
            elapsed: Duration::ZERO,
        },
        principal: Principal(blake3::hash(b"bench")),
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        cancel: CancellationToken::new(),
        stall: Duration::from_secs(60),
    };
    bencher.with_inputs(query).bench_local_values(|query| {
        let (sender, head) = oneshot::channel();
        runtime.block_on(engine.query(query, sender));
        assert!(matches!(head.blocking_recv(), Ok(Ok(Head::Whole(..)))));
    });
}

/// 2,048 rows of ten columns.
#[divan::bench(args = Format::ALL)]
fn encode(bencher: Bencher, format: Format) {
    let dir = marts(1);
    let path = dir.path().join(SCHEMA).join("m0.parquet");
    let connection = Database::open_in_memory(&[]).and_then(|database| database.connect());
    let connection = connection.expect("DuckDB opens");
    let statement = connection.prepare(&format!("FROM '{}'", path.display()));
    let mut statement = statement.expect("it can be read");
    let fetch = || {
        let mut rows = statement.execute().expect("rows");
        (rows.columns().to_vec(), rows.next_chunk().expect("rows"))
    };
    let summary = Summary { truncated: false, snapshot: "", elapsed: Duration::ZERO };
    let mut out = Vec::new();
    bencher.with_inputs(fetch).bench_local_values(|(columns, chunk)| {
        out.clear();
        let mut encoder =
            Encoder::begin(format, &mut out, &columns, Form::default()).expect("a format");
        encoder.chunk(&mut out, chunk.expect("rows"), ROWS).expect("values");
        encoder.end(&mut out, summary).expect("an end");
        out.len()
    });
}

/// A cached answer over HTTP, on one connection.
#[divan::bench]
fn request(bencher: Bencher) {
    let dir = marts(1);
    let martd = Martd::start(&dir);
    let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
    stream.set_nodelay(true).expect("a socket");
    let request = format!(
        "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{SMALL}",
        SMALL.len()
    );
    let mut buffer = [0; 64 << 10];
    let mut ask = || {
        stream.write_all(request.as_bytes()).expect("martd reads");
        let mut read = stream.read(&mut buffer).expect("martd answers");
        // The statistics end the answer.
        while !buffer[..read].ends_with(b"}}") {
            read += stream.read(&mut buffer[read..]).expect("martd answers");
        }
        assert!(
            buffer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&buffer[..read])
        );
        read
    };
    ask();
    bencher.bench_local(ask);
}

/// A running martd; killed when dropped.
struct Martd {
    process: Child,
    address: String,
}

impl Martd {
    fn start(dir: &TempDir) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_martd"))
            .env("PARQUET_DIR", dir.path())
            .env("MARTD_LISTEN", "127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .expect("martd starts");
        let log = BufReader::new(process.stderr.take().expect("piped"));
        let mut lines = log.lines().map(|line| line.expect("a line of the log"));
        let mut line_with = |message: &str| {
            let line = lines.find(|line| line.contains(message)).expect("martd goes on");
            serde_json::from_str::<serde_json::Value>(&line).expect("JSON")
        };
        let address = line_with("\"serving\"")["address"].as_str().expect("an address").to_owned();
        line_with("\"published\"");
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }
}

impl Drop for Martd {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}
