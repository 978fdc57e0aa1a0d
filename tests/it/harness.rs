//! Starts martd on a port of its own and asks it questions.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

/// Longer than anything here takes on a busy machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The seed of everything that is random: the same in each run, so that a run that fails is a change that
/// fails. `make fuzz` sets others.
pub fn seed() -> u64 {
    let seed = std::env::var("TEST_SEED").ok().filter(|seed| !seed.is_empty());
    let seed = seed.map_or(2026, |seed| seed.parse().expect("TEST_SEED is a number"));
    println!("TEST_SEED={seed}");
    seed
}

/// What asks over HTTP, and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(PATIENCE)).build().new_agent()
}

/// A running martd. Killed when dropped.
pub struct Martd {
    process: Child,
    pub address: String,
    /// Where probes are answered too, if anywhere.
    pub admin: String,
    log: Arc<Mutex<Vec<Json>>>,
    agent: ureq::Agent,
}

/// An answer of martd.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The `data` of a query's answer, which must have succeeded.
    pub fn rows(&self) -> Json {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["data"].take()
    }

    /// The only value of the only row.
    pub fn value(&self) -> Json {
        let rows = self.rows();
        let row = rows[0].as_object().unwrap_or_else(|| panic!("no row: {self:?}"));
        row.values().next().expect("a column").clone()
    }

    /// The slug and the detail of a problem.
    pub fn problem(&self) -> (String, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        let slug = json["type"].as_str().expect("a type").replace("urn:martd:problem:", "");
        assert_eq!(json["status"], self.status);
        assert_eq!(json["request_id"], self.header("x-request-id"));
        (slug, json["detail"].as_str().expect("a detail").to_owned())
    }
}

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_martd"))
}

/// Runs one of martd's commands to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run_with_input(arguments, environment, "")
}

/// The same, with this on its standard input.
pub fn run_with_input(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut process = Command::new(program())
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("martd starts");
    let mut stdin = process.stdin.take().expect("piped");
    let _ = stdin.write_all(input.as_bytes()); // it may not read it
    drop(stdin);
    let output = process.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Output {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Martd {
    /// Starts martd over `PARQUET_DIR` and waits until it listens.
    pub fn start(parquet_dir: &Path) -> Self {
        Self::start_with(parquet_dir, &[])
    }

    /// The same, with more settings from the environment.
    pub fn start_with(parquet_dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(&mut Self::command(&[], parquet_dir, settings))
    }

    /// The same, in this working directory, and as the leader of a process group, in which its
    /// children stay when it dies.
    pub fn start_in_group(parquet_dir: &Path, settings: &[(&str, &str)], work_dir: &Path) -> Self {
        let mut command = Self::command(&[], parquet_dir, settings);
        Self::run(command.current_dir(work_dir).process_group(0))
    }

    /// The same, started by another program, which must become martd: `prlimit`, `nsenter`, `setpriv`.
    pub fn start_under(launcher: &[&str], parquet_dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(&mut Self::command(launcher, parquet_dir, settings))
    }

    /// What starts martd, for a test that changes it.
    pub fn command(launcher: &[&str], parquet_dir: &Path, settings: &[(&str, &str)]) -> Command {
        let mut words = launcher.iter().map(OsStr::new).chain([program().as_os_str()]);
        let mut command = Command::new(words.next().expect("at least martd"));
        command
            .args(words)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("PARQUET_DIR", parquet_dir)
            .env("MARTD_LISTEN", "127.0.0.1:0")
            .env("RUST_LOG", "debug")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped());
        if parquet_dir.exists() {
            // What a statement could write by a relative path would be found here.
            command.current_dir(parquet_dir);
        }
        command
    }

    /// Starts it and waits until it listens.
    pub fn run(command: &mut Command) -> Self {
        let mut process = command.spawn().expect("martd starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let sink = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let json = serde_json::from_str(&line).unwrap_or(Json::String(line));
                sink.lock().expect("no panic").push(json);
            }
        });
        let (address, admin) = wait_for("martd to listen", || {
            let log = log.lock().expect("no panic");
            let line = log.iter().find(|line| line["message"] == "serving")?;
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            Some((text("address"), text("admin")))
        });
        Self { process, address, admin, log, agent: agent() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.url(path)).call())
    }

    /// Asks the admin listener.
    pub fn get_admin(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("http://{}{path}", self.admin)).call())
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    /// The bytes of an answer that is no text.
    pub fn get_bytes(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().expect("martd answers");
        let status = response.status().as_u16();
        (status, response.body_mut().with_config().limit(1 << 30).read_to_vec().expect("a body"))
    }

    /// `POST /v1/query` with this JSON body.
    pub fn post(&self, body: &Json) -> Answer {
        self.post_with(body, &[])
    }

    /// The same with headers.
    pub fn post_with(&self, body: &Json, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.post(self.url("/v1/query"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send_json(body))
    }

    /// The same, without waiting for an answer.
    pub fn post_unread(&self, body: &Json) -> TcpStream {
        let mut connection = TcpStream::connect(&self.address).expect("martd listens");
        let body = body.to_string();
        let head = format!(
            "POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(head.as_bytes()).expect("write");
        connection
    }

    /// Posts a text that is JSON, or should be.
    pub fn post_to(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request =
            self.agent.post(self.url(path)).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    /// `POST /v1/query` with a body of any type.
    pub fn post_text(&self, body: &str, content_type: &str) -> Answer {
        let request = self.agent.post(self.url("/v1/query")).header("content-type", content_type);
        answer(request.send(body))
    }

    pub fn delete_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.delete(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn query(&self, sql: &str) -> Answer {
        self.post(&json!({ "sql": sql }))
    }

    /// Asks a martd that may die before it answers.
    pub fn client(&self) -> Client {
        self.client_with("")
    }

    /// The same with this as `Authorization`.
    pub fn client_with(&self, bearer: &str) -> Client {
        Client {
            url: self.url("/v1/query"),
            agent: self.agent.clone(),
            authorization: bearer.to_owned(),
        }
    }

    pub fn snapshot(&self) -> Json {
        self.get("/v1/snapshot").json()
    }

    /// Waits until `/v1/snapshot` satisfies `condition`, and returns it.
    pub fn wait_snapshot(&self, what: &str, condition: impl Fn(&Json) -> bool) -> Json {
        wait_for(what, || Some(self.snapshot()).filter(|snapshot| condition(snapshot)))
    }

    /// Waits until this build is served, and returns `/v1/snapshot`.
    pub fn wait_build<B: Display + ?Sized>(&self, build: &B) -> Json
    where
        Json: PartialEq<B>,
    {
        self.wait_snapshot(&format!("build {build}"), |s| s["build"]["invocation_id"] == *build)
    }

    pub fn wait_ready(&self) -> Json {
        self.wait_snapshot("a snapshot", |snapshot| !snapshot["id"].is_null())
    }

    pub fn log(&self) -> Vec<Json> {
        self.log.lock().expect("no panic").clone()
    }

    /// Waits for a line with this message in the log.
    pub fn wait_log(&self, message: &str) -> Json {
        wait_for(message, || self.log().into_iter().find(|line| line["message"] == message))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).expect("martd runs");
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        wait_for("martd to exit", || self.process.try_wait().expect("a child"))
    }
}

/// A client that may outlive its martd.
pub struct Client {
    url: String,
    agent: ureq::Agent,
    authorization: String,
}

impl Client {
    /// An answer that came whole; `None` when martd is gone.
    pub fn query(&self, sql: &str) -> Option<Answer> {
        self.post(&json!({ "sql": sql }))
    }

    /// The same of any body.
    pub fn post(&self, body: &Json) -> Option<Answer> {
        let mut request = self.agent.post(&self.url);
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        read(request.send_json(body).ok()?).ok()
    }
}

impl Drop for Martd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            // Requests are told apart: a test that waits asks so often that nothing else is left.
            let (requests, events): (Vec<_>, Vec<_>) =
                self.log().into_iter().partition(|line| line["message"] == "answered");
            let last = |lines: &[Json], most| lines[lines.len().saturating_sub(most)..].to_vec();
            for line in last(&events, 40).iter().chain(&last(&requests, 5)) {
                eprintln!("martd: {line}");
            }
        }
    }
}

fn answer(outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    outcome.and_then(read).expect("martd answers")
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().with_config().limit(1 << 30).read_to_string()?,
    })
}

/// Looks again and again until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// The names of a list of objects, under this key.
pub fn names(list: &Json, key: &str) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|item| item[key].as_str().expect("a name").to_owned()).collect()
}

/// A file of tokens, for `MARTD_TOKEN_FILE`.
pub struct Tokens(tempfile::NamedTempFile);

impl Tokens {
    pub fn new(count: usize) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let lines: String = (0..count).map(|number| format!("{}\n", Self::token(number))).collect();
        std::fs::write(file.path(), lines).expect("write");
        Self(file)
    }

    fn token(number: usize) -> String {
        format!("the-token-of-client-{number}")
    }

    pub fn file(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }

    /// What a client with this token sends as `Authorization`.
    pub fn bearer(&self, number: usize) -> String {
        format!("Bearer {}", Self::token(number))
    }
}

/// Faults for `MARTD_TEST_FAULTS`, which a debug build alone has.
pub struct Faults(tempfile::TempDir);

impl Faults {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }

    /// Faults that make a wait of martd's a hundredth as long.
    pub fn short(what: &str) -> Self {
        let faults = Self::new();
        std::fs::write(faults.0.path().join(format!("short-{what}")), "").expect("write");
        faults
    }

    /// From here on an engine that runs this statement aborts.
    pub fn abort_at(&self, sql: &str) {
        let hash = blake3::hash(sql.as_bytes()).to_hex();
        std::fs::write(self.0.path().join(format!("abort-{}", &hash[..16])), "").expect("write");
    }
}

/// A temporary `PARQUET_DIR` with its `mart` directory.
pub struct Root(tempfile::TempDir);

impl Root {
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join("mart")).expect("mkdir");
        Self(root)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in the mart directory.
    pub fn mart(&self, file: &str) -> PathBuf {
        self.0.path().join("mart").join(file)
    }
}
