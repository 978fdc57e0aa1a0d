//! The status page, in a real browser and without one.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use crate::browser::{Browser, DESKTOP, Look};
use crate::harness::{Martd, Root, run, wait_for};
use crate::writers::{Project, Writer, put};

/// A project like a real one, served from a good build.
fn stage(settings: &[(&str, &str)]) -> (Root, Writer, Project, Martd) {
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    for (name, rows) in [
        ("dim_accounts", 18),
        ("dim_tags", 42),
        ("fct_net_worth_history", 612),
        ("fct_transactions", 120_000),
    ] {
        let select =
            format!("SELECT i AS id, i::DECIMAL(38,2) / 3 AS amount FROM range({rows}) t(i)");
        writer.land_stamped(&root, name, &select, Some("c0beb625-e0a9-4d8f-b41b-9ae12c6d93e5"));
        project.built(name, "c0beb625-e0a9-4d8f-b41b-9ae12c6d93e5");
        let hours = |count: u32| json!({"count": count, "period": "hour"});
        project.meta.insert(
            name.to_owned(),
            json!({"freshness": {"warn_after": hours(26), "error_after": hours(50)}}),
        );
    }
    project.write_ledger(&root, "c0beb625-e0a9-4d8f-b41b-9ae12c6d93e5");
    let martd = Martd::start_with(root.path(), settings);
    wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
    (root, writer, project, martd)
}

fn open(martd: &Martd, look: Look) -> Option<Browser> {
    let browser = Browser::open(look)?;
    browser.visit(&format!("http://{}/", martd.address));
    if look.script {
        browser.wait_text("#live", "live");
    }
    Some(browser)
}

/// Tables that are wider than the page lets them be.
fn cut_off(browser: &Browser) -> Json {
    browser.eval(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length",
    )
}

/// Nothing in the console, nothing in the way of anyone; a picture for docs/ when asked for.
fn inspect(browser: &Browser, name: &str) {
    assert_eq!(browser.complaints(), Vec::<Json>::new(), "{name}");
    assert_eq!(browser.barriers(), json!([]), "{name}");
    let picture = browser.screenshot();
    assert!(picture.starts_with(b"\x89PNG"));
    if std::env::var_os("SCREENSHOTS").is_some() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        std::fs::create_dir_all(&docs).expect("mkdir");
        std::fs::write(docs.join(format!("{name}.png")), picture).expect("write");
    }
}

#[test]
fn a_ledger_cannot_control_the_page_or_a_terminal() {
    const WILD: &str = "a\u{1b}[2J\u{0}\u{7}b\u{202e}c\u{9b}d";
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    writer.land_stamped(&root, "a", "SELECT 1 AS x", Some("one"));
    project.built("a", "one");
    project.write_ledger(&root, "one");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    project.outstanding.push(json!({
        "unique_id": format!("model.{WILD}"), "message": WILD, "since": "2026-01-01T00:00:00Z",
    }));
    project.write_ledger(&root, "two");
    martd.wait_snapshot("a hold", |snapshot| snapshot["held"].is_object());
    let page = martd.get("/").body;
    assert!(page.contains(r"a\u{1b}[2J\u{0}\u{7}b\u{202e}c\u{9b}d"), "{page}");
    let is_wild = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!page.contains(is_wild), "{page:?}");
    let server = [("MARTD_SERVER", martd.address.as_str())];
    for words in [&["freshness"][..], &["wait", "--build", "two", "--timeout", "1s"]] {
        let output = run(words, &server);
        assert!(!output.out.contains(is_wild) && !output.err.contains(is_wild), "{output:?}");
    }
}

#[test]
fn the_page_works_without_scripts_and_any_mart_name() {
    let (root, writer) = (Root::new(), Writer::new());
    let name = "<script>alert('x')<\\script> & \"co\"";
    let parquet = writer.parquet("SELECT 1 AS x FROM range(1234)", None);
    put(root.mart(&format!("{name}.parquet")), &parquet);
    put(root.mart("<b>.parquet"), b"PAR1 this is no Parquet file at all PAR1");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let page = martd.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.body.contains("&lt;script&gt;alert('x')&lt;\\script&gt; &amp; &quot;co&quot;"));
    assert!(page.body.contains("1,234") && page.body.contains("<code>&lt;b&gt;.parquet</code>"));
    for part in ["alert('x')<", "<b>", "<style", " style=", "onclick", "<script>"] {
        assert!(!page.body.contains(part), "{part} in {}", page.body);
    }
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, content_type) in [
        ("/status.css", "text/css; charset=utf-8"),
        ("/status.js", "text/javascript; charset=utf-8"),
    ] {
        let asset = martd.get(path);
        assert_eq!((asset.status, asset.header("content-type")), (200, content_type));
        assert!(!asset.body.contains("http://") && !asset.body.contains("https://"), "{path}");
    }
    let Some(browser) = open(&martd, DESKTOP) else { return };
    browser.wait_text("tbody", name);
    assert_eq!(browser.complaints(), Vec::<Json>::new());

    let long = "a".repeat(200);
    let select = format!("SELECT {{'a': 1, 'b': {{'c': [1], 'd': 'x'}}}} AS {long}");
    writer.land(&root, &long, &select);
    browser.wait_text("tbody", &long);
    browser.eval("document.querySelectorAll('details').forEach(details => details.open = true)");
    assert_eq!(cut_off(&browser), 0, "long names and types are broken into lines");
}

#[test]
fn the_page_says_how_the_mirror_is_behind() {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "a", "SELECT 1 AS x");
    let now = Timestamp::now();
    let status = |minutes: i64, error: Json| {
        let equal = now - SignedDuration::from_mins(minutes);
        let status = json!({
            "source": "s3://bucket/marts", "interval_seconds": 3_600, "started_at": now, "checked_at": now,
            "succeeded_at": equal, "objects": 9, "bytes": 90,
            "behind": {"objects": 7, "bytes": 70}, "error": error,
        });
        put(root.mart("_mirror.json"), status.to_string().as_bytes());
    };
    status(14, json!(null));
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let page = |words: &str| {
        wait_for(words, || martd.get("/").body.contains(words).then_some(()));
    };
    page("Nothing. Every file that is there is served");
    status(16, json!(null));
    page("The mirror is behind: 7 objects are missing");
    page("The directory was last equal to <code>s3://bucket/marts</code>");
    status(16, json!({"reason": "it is refused", "object": "marts/b.parquet", "since": now}));
    page("The mirror has failed");
    page("<code>marts/b.parquet</code>: it is refused");
}

#[test]
fn a_browser_shows_a_normal_day() {
    let (root, writer, _project, martd) = stage(&[]);
    let Some(browser) = open(&martd, DESKTOP) else { return };
    browser.wait_text(".badges", "Ready");
    browser.wait_text(".attention", "Nothing.");
    browser.wait_text("table", "fct_transactions");
    browser.eval("document.querySelector('details[data-mart=dim_tags]').open = true");
    assert!(browser.text("tbody").contains("amount DOUBLE"));
    assert_eq!(browser.eval("document.querySelectorAll('svg.age').length"), 4);
    assert_eq!(browser.eval("document.querySelector('.history svg').ariaLabel"), "1 published");
    inspect(&browser, "normal");

    // What happens shows without a reload.
    browser.eval("(window.untouched = true)");
    writer.land(&root, "exchange_rates", "SELECT 1 AS x FROM range(77)");
    browser.wait_text("tbody", "exchange_rates");
    browser.wait_text(".events", "exchange_rates");
    assert_eq!(browser.eval("window.untouched"), true);
    assert_eq!(browser.complaints(), Vec::<Json>::new());

    let dark = Look { dark: true, ..DESKTOP };
    let Some(browser) = open(&martd, dark) else { return };
    assert_eq!(browser.eval("getComputedStyle(document.body).backgroundColor"), "rgb(20, 25, 28)");
    inspect(&browser, "dark");

    let phone = Look { width: 390, height: 844, ..DESKTOP };
    let Some(browser) = open(&martd, phone) else { return };
    let overflow = browser.eval("document.documentElement.scrollWidth - innerWidth");
    assert_eq!(overflow, 0, "the page is wider than a phone");
    assert_eq!(cut_off(&browser), 0, "the marts are cut off");
    inspect(&browser, "phone");

    let Some(browser) = open(&martd, Look { script: false, ..DESKTOP }) else { return };
    assert!(browser.text("tbody").contains("fct_transactions"));
    assert!(browser.text(".badges").contains("Ready"));
}

#[test]
fn a_browser_runs_queries_and_marks_what_is_wrong() {
    let (_root, _writer, _project, martd) = stage(&[]);
    let Some(browser) = open(&martd, DESKTOP) else { return };
    let sql = "SELECT 9007199254740993 AS big, 0.10::DECIMAL(9,2) AS d, NULL AS n, [1, 2] AS l, 'it''s <b>' AS t";
    browser.type_into("#sql", &format!("{sql}\u{e009}\u{e007}\u{e000}"));
    browser.wait_text("#answer", "1 row");
    let cells =
        browser.eval("[...document.querySelectorAll('#answer td')].map(c => c.textContent)");
    assert_eq!(cells, json!(["9007199254740993", "0.10", "null", "[1,2]", "it's <b>"]));
    let types = browser.eval("[...document.querySelectorAll('#answer th')].map(c => c.title)");
    assert_eq!(types[1], "DECIMAL(9,2)");

    // The line for a shell says the same.
    let curl = browser.text("#curl");
    let output = std::process::Command::new("sh").args(["-c", &curl]).output().expect("sh runs");
    let answer: Json = serde_json::from_slice(&output.stdout).expect(&curl);
    assert_eq!(answer["data"][0]["t"], "it's <b>");

    // All rows of it, as a file.
    browser.eval("(document.getElementById('sql').value = '')");
    browser.eval(
        "(HTMLAnchorElement.prototype.click = function () { window.saved = this.download; })",
    );
    browser.eval("(URL.createObjectURL = (blob) => { blob.text().then((t) => { window.csv = t; }); return '#'; })");
    browser.type_into("#sql", "SELECT id FROM mart.fct_net_worth_history ORDER BY id");
    browser.eval("document.querySelector('button[value=csv]').click()");
    let csv = wait_for("a file", || browser.eval("window.csv ?? null").as_str().map(str::to_owned));
    assert_eq!(browser.eval("window.saved"), "martd.csv");
    assert!(csv.starts_with("id\n0\n1\n") && csv.lines().count() == 613, "{csv}");

    browser.eval("(document.getElementById('sql').value = '')");
    browser.type_into("#sql", "SELECT nope FROM mart.dim_tags\u{e009}\u{e007}\u{e000}");
    browser.wait_text("#answer", "The statement is wrong");
    assert_eq!(browser.text("#answer mark"), "nope");
    assert_eq!(browser.text("#answer pre"), "SELECT nope FROM mart.dim_tags");
    assert!(!browser.text("#answer .failed").contains("LINE"), "the statement is shown once");
    // The console tells of the 400, which is no mistake of the page.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|c| c["source"] == "network"), "{complaints:?}");
    assert_eq!(browser.barriers(), json!([]));
}

#[test]
fn the_page_shows_stale_held_and_missing_on_top() {
    let (root, writer, mut project, martd) = stage(&[]);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60 * 3_600);
    let file = std::fs::File::options().write(true).open(root.mart("fct_transactions.parquet"));
    file.and_then(|file| file.set_modified(old)).expect("utimensat");
    let Some(browser) = open(&martd, DESKTOP) else { return };
    browser.wait_text(".attention", "1 mart is stale");
    browser.wait_text(".badges", "Freshness: error");
    assert_eq!(browser.eval("document.title"), "martd: marts are stale");
    inspect(&browser, "stale");

    let build = "7d1f6c55-0c9e-4b7c-9d6f-3a1f3c1c2b90";
    writer.land_stamped(&root, "dim_tags", "SELECT 1 AS id", Some(build));
    project.built("dim_tags", build);
    project.failed("test.finance.unique_dim_tags_tag_id");
    for name in ["dim_accounts", "fct_net_worth_history", "fct_transactions"] {
        project.outstanding.push(json!({
            "unique_id": format!("model.finance.{name}"), "message": "skipped",
            "since": "2026-01-01T00:00:00Z",
        }));
    }
    project.write_ledger(&root, build);
    let mut damaged = writer.parquet("SELECT i AS x FROM range(5000) t(i)", None);
    damaged[60..400].fill(0xff);
    put(root.mart("exchange_rates.parquet"), &damaged);
    writer.land_stamped(&root, "dim_accounts", "SELECT 1 AS id", Some("another"));
    browser.wait_text(".attention", "A build is held: 1 node has failed");
    browser.wait_text(".attention", "test.finance.unique_dim_tags_tag_id");
    browser.wait_text(".attention details", "3 nodes were skipped");
    assert!(!browser.text(".attention").contains("model.finance.dim_accounts"), "it is folded");
    browser.wait_text(".attention", "A build is running: 1 file so far");
    browser.wait_text(".attention", "1 file is rejected");
    browser.wait_text(".attention", "exchange_rates.parquet");
    inspect(&browser, "held");

    let nothing = Root::new();
    let waiting = Martd::start_with(nothing.path(), &[("MARTD_REQUIRE", "fct_transactions")]);
    let Some(browser) = open(&waiting, DESKTOP) else { return };
    browser.wait_text(".badges", "Not ready");
    browser.wait_text(".attention", "no Parquet file has landed yet");
    browser.wait_text(".attention", "the required mart fct_transactions is not served");
    inspect(&browser, "not-ready");
}

#[test]
fn the_page_shows_nothing_without_a_required_token() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "s3cret id=*\n").expect("write");
    let tokens = tokens.display().to_string();
    let settings = [("MARTD_TOKEN_FILE", tokens.as_str()), ("MARTD_SCOPE_COLUMN", "id")];
    let (_root, _writer, _project, martd) = stage(&settings);
    let bare = martd.get("/");
    assert_eq!(bare.status, 200);
    for fact in ["dim_tags", "Ready", "snapshot_id", "c0beb625", "Rows of", "Marts"] {
        assert!(!bare.body.contains(fact), "{fact}");
    }
    assert_eq!(martd.get_with("/", &[("authorization", "Bearer wrong")]).status, 401);
    let page = martd.get_with("/", &[("authorization", "Bearer s3cret")]);
    assert!(page.body.contains("dim_tags"));

    let Some(browser) = Browser::open(DESKTOP) else { return };
    browser.visit(&format!("http://{}/", martd.address));
    browser.wait_text("main", "A token is needed");
    inspect(&browser, "token");
    browser.type_into("#token-value", "wrong\u{e007}");
    browser.wait_text("#token-problem", "That token is not known.");
    browser.type_into("#token-value", "\u{e009}a\u{e000}s3cret\u{e007}");
    browser.wait_text("tbody", "dim_tags");
    browser.wait_text("#live", "live");
    browser.type_into("#scope", "7");
    browser.type_into("#sql", "SELECT id FROM mart.dim_tags\u{e009}\u{e007}\u{e000}");
    browser.wait_text("#answer", "1 row");
    assert!(browser.text("#curl").contains("-H 'Martd-Scope: id=7'"));
}
