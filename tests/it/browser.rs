//! A real browser, driven over WebDriver: Chromium by its chromedriver.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::harness::{agent, wait_for};

const CHROMIUM: &str = "/usr/bin/chromium";

/// How a page is looked at.
#[derive(Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
    pub script: bool,
}

pub const DESKTOP: Look = Look { width: 1200, height: 900, dark: false, script: true };

/// A browser of its own, with an empty profile. Closed when dropped.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens a browser; `None`, with a word why, where none is installed.
    pub fn open(look: Look) -> Option<Self> {
        let installed = Path::new(CHROMIUM).exists()
            && Command::new("chromedriver").arg("--version").output().is_ok();
        if !installed {
            eprintln!("skipped: no browser (Debian has it as chromium and chromium-driver)");
            return None;
        }
        let (driver, port) = wait_for("a chromedriver", start_driver);

        let profile = tempfile::tempdir().expect("a temporary directory");
        let agent = agent();
        let mut arguments = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--force-color-profile=srgb".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
            format!("--window-size={},{}", look.width, look.height),
        ];
        if look.dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        if !look.script {
            arguments.push("--blink-settings=scriptEnabled=false".to_owned());
        }
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, session: base, agent, _profile: profile };
        let id = browser.post("", &capabilities)["sessionId"].take();
        browser.session = format!("{}/{}", browser.session, id.as_str().expect("a session"));
        // A headless window is smaller than it was asked to be, by what a frame would take.
        browser.post(
            "/goog/cdp/execute",
            &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": {
                "width": look.width, "height": look.height, "deviceScaleFactor": 1,
                "mobile": look.width < 600,
            }}),
        );
        Some(browser)
    }

    fn post(&self, path: &str, body: &Json) -> Json {
        let url = format!("{}{path}", self.session);
        let mut response = self.agent.post(url).send_json(body).expect("chromedriver answers");
        let mut answer: Json = response.body_mut().read_json().expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{path}: {answer:#}");
        answer["value"].take()
    }

    pub fn visit(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a script in the page; `arguments[0]` takes its answer.
    pub fn run_async(&self, script: &str) -> Json {
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// The value of an expression in the page.
    pub fn eval(&self, expression: &str) -> Json {
        self.post("/execute/sync", &json!({"script": format!("return {expression}"), "args": []}))
    }

    /// The text of the first element that a selector finds; empty without one.
    pub fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({selector:?})?.innerText ?? ''"));
        text.as_str().expect("text").to_owned()
    }

    /// Waits until an element's text holds this.
    pub fn wait_text(&self, selector: &str, expected: &str) {
        wait_for(&format!("{expected:?} in {selector}"), || {
            self.text(selector).contains(expected).then_some(())
        });
    }

    /// Types into the element that a selector finds. `\u{e009}` holds Ctrl, `\u{e007}` is Enter.
    pub fn type_into(&self, selector: &str, text: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|o| o.values().next()).and_then(Json::as_str);
        let id = id.expect("an element");
        self.post(&format!("/element/{id}/value"), &json!({ "text": text }));
    }

    /// What the console has said since it was asked last, warnings and errors alone.
    pub fn complaints(&self) -> Vec<Json> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let serious = |entry: &&Json| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        log.as_array().expect("a log").iter().filter(serious).cloned().collect()
    }

    /// What axe finds that keeps people from using the page.
    pub fn barriers(&self) -> Json {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let axe = glob_one(&root.join(".venv/lib"), "site-packages/axe_core_python/axe.min.js");
        let axe = std::fs::read_to_string(axe).expect("run make .venv/ready");
        self.run_async(&format!(
            "{axe}; const done = arguments[0];
             axe.run().then(found => done(found.violations
                 .filter(v => v.impact === 'serious' || v.impact === 'critical')
                 .map(v => ({{id: v.id, help: v.help, nodes: v.nodes.map(n => n.html)}}))));"
        ))
    }

    /// A picture of the window.
    pub fn screenshot(&self) -> Vec<u8> {
        let picture = self.agent.get(format!("{}/screenshot", self.session)).call();
        let mut picture = picture.expect("chromedriver answers");
        let answer: Json =
            picture.body_mut().with_config().limit(64 << 20).read_json().expect("JSON");
        STANDARD.decode(answer["value"].as_str().expect("base64")).expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Starts a chromedriver; `None` when it ends at once: it takes a port that is free for IPv4, which another
/// process may have for IPv6.
fn start_driver() -> Option<(Child, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed");
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    let port = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("successfully on port ")?.1.to_owned()));
    let Some(port) = port else {
        driver.wait().expect("it has ended");
        return None;
    };
    std::thread::spawn(move || lines.for_each(drop));
    Some((driver, port.trim_end_matches('.').to_owned()))
}

/// The file of this ending under the only folder that has it (the version of Python).
fn glob_one(dir: &Path, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(dir).expect("run make .venv/ready");
    let mut paths = entries.map(|entry| entry.expect("an entry").path().join(ending));
    paths.find(|path| path.exists()).expect("run make .venv/ready")
}
