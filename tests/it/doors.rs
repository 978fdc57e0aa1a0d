//! What a web page that somebody has open can do to a martd on the same machine: nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::{Value as Json, json};

use crate::browser::{Browser, DESKTOP};
use crate::harness::{Martd, Root};
use crate::writers::serving;

fn martd(settings: &[(&str, &str)]) -> (Root, Martd) {
    serving("a", "SELECT 1 AS x", settings)
}

/// Sends a request with these lines in its head, and returns the answer in lower case.
fn ask(martd: &Martd, request: &str, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("{request} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    answer.to_ascii_lowercase()
}

const QUERY: &str = "GET /v1/query?sql=from+mart.a";

#[test]
fn a_name_that_was_rebound_to_loopback_reads_nothing() {
    let (_root, martd) = martd(&[]);
    let answer = ask(&martd, QUERY, &["host: evil.example:8321"]);
    assert!(answer.starts_with("http/1.1 421") && answer.contains("misdirected"), "{answer}");
    assert!(ask(&martd, QUERY, &["host: localhost:8321"]).starts_with("http/1.1 200"));
    assert!(ask(&martd, QUERY, &[]).starts_with("http/1.1 400"), "no host");
    assert!(ask(&martd, QUERY, &["host: a", "host: a"]).starts_with("http/1.1 400"), "two");

    let (_root, martd) = self::martd(&[("MARTD_HOSTS", "martd.example")]);
    assert!(ask(&martd, QUERY, &["host: martd.example"]).starts_with("http/1.1 200"));
}

#[test]
fn a_page_of_another_site_runs_nothing() {
    let (_root, martd) = martd(&[]);
    for line in [
        "origin: http://evil.example",
        "origin: null",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ] {
        let answer = ask(&martd, QUERY, &["host: localhost", line]);
        assert!(answer.starts_with("http/1.1 403"), "{line}: {answer}");
        assert!(answer.contains("origin-not-allowed"), "{line}: {answer}");
        assert!(!answer.contains("access-control-allow-origin"), "{line}: {answer}");
    }
    let own = ["host: localhost:8321", "origin: http://localhost:8321"];
    assert!(ask(&martd, QUERY, &own).starts_with("http/1.1 200"), "the status page's");
}

#[test]
fn a_listed_page_asks_and_reads() {
    let (_root, martd) = martd(&[("MARTD_CORS_ORIGINS", "https://app.example")]);
    let page = ["host: localhost", "origin: https://app.example", "sec-fetch-site: cross-site"];
    let answer = ask(&martd, QUERY, &page);
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
    assert!(answer.contains("vary: origin"), "{answer}");

    let asks = ["access-control-request-method: POST", page[0], page[1]];
    let answer = ask(&martd, "OPTIONS /v1/query", &asks);
    assert!(answer.starts_with("http/1.1 204"), "{answer}");
    assert!(answer.contains("access-control-allow-methods: get, head, post, delete"), "{answer}");
    let stranger = [asks[0], asks[1], "origin: https://evil.example"];
    assert!(ask(&martd, "OPTIONS /v1/query", &stranger).starts_with("http/1.1 403"));
}

#[test]
fn an_origin_that_is_none_is_a_wrong_setting() {
    let parquet_dir = Root::new();
    let dir = parquet_dir.path().to_str().expect("UTF-8");
    for origin in ["app.example", "https://app.example/", "*"] {
        let settings = [("PARQUET_DIR", dir), ("MARTD_CORS_ORIGINS", origin)];
        let output = crate::harness::run(&["serve"], &settings);
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.err.contains("MARTD_CORS_ORIGINS"), "{output:?}");
    }
}

/// A web server of somebody else's, on the same machine; returns its port. It lasts as long as the test.
fn other_site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Browsers open connections that they do not use.
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let page = "<!doctype html><title>x</title><link rel=icon href=data:,>";
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n{page}",
                    page.len()
                );
            });
        }
    });
    port
}

/// What a page gets by each way that browsers have to ask another site.
fn attack(browser: &Browser, target: &str) -> Json {
    browser.run_async(&format!(
        r#"const done = arguments[0], at = "{target}", sql = "/v1/query?sql=select+4711+as+secret";
        const read = (path, options) => fetch(at + path, options).then(r => r.text(), () => "");
        const load = (tag, url) => new Promise(end => {{
            const node = document.createElement(tag);
            node.onload = () => end("loaded"); node.onerror = () => end("");
            node[tag === "link" ? "href" : "src"] = at + url;
            if (tag === "link") node.rel = "stylesheet";
            document.head.append(node);
        }});
        Promise.all([
            read(sql), read("/v1/snapshot"), read("/"),
            read("/v1/query", {{method: "POST", headers: {{"content-type": "application/json"}},
                body: '{{"sql": "select 4711 as secret"}}'}}),
            read("/v1/query", {{method: "POST", headers: {{"content-type": "text/plain"}},
                body: "select 4711 as secret"}}),
            read("/v1/query", {{method: "POST", mode: "no-cors", body: "select 4711 as secret"}}),
            navigator.sendBeacon(at + "/v1/query", "select 4711 as secret") && "",
            load("script", sql), load("script", "/status.js"), load("img", sql), load("link", "/status.css"),
        ]).then(done);"#
    ))
}

#[test]
fn another_site_in_a_browser_reads_and_runs_nothing() {
    let (_root, martd) = martd(&[]);
    let Some(browser) = Browser::open(DESKTOP) else { return };
    let (here, there) =
        (other_site(), martd.address.rsplit_once(':').expect("a port").1.to_owned());
    // Of another site, and of another port of the same one; asking for an address, and for a name that
    // its owner has let point to this machine.
    for page in ["evil.localhost", "127.0.0.1"] {
        browser.visit(&format!("http://{page}:{here}/"));
        for target in ["127.0.0.1", "localhost", "rebound.localhost"] {
            let got = attack(&browser, &format!("http://{target}:{there}"));
            let nothing = got.as_array().expect("answers").iter().all(|answer| answer == "");
            assert!(nothing, "{page} of {target}: {got}");
        }
    }
    // A name of theirs that points here makes the page martd's own; martd is not there by that name.
    browser.visit(&format!("http://rebound.localhost:{there}/v1/query?sql=select+4711+as+secret"));
    assert!(!browser.text("body").contains("4711"), "{}", browser.text("body"));
    let log = martd.log();
    let ran: Vec<&Json> = log.iter().filter(|line| line["statement"].is_string()).collect();
    assert!(ran.is_empty(), "a statement was run: {ran:?}");
}

#[test]
fn in_a_browser_a_listed_site_reads_what_it_asks() {
    let here = other_site();
    let origin = format!("http://app.localhost:{here}");
    let (_root, martd) = martd(&[("MARTD_CORS_ORIGINS", &origin)]);
    let Some(browser) = Browser::open(DESKTOP) else { return };
    browser.visit(&origin);
    let got = browser.run_async(&format!(
        r#"const done = arguments[0];
        fetch("http://{}/v1/query", {{method: "POST", body: '{{"sql": "select x from mart.a"}}',
            headers: {{"content-type": "application/json", "x-request-id": "of-a-page"}}}})
            .then(async r => done([await r.json(), r.headers.get("x-request-id"),
                r.headers.get("martd-snapshot")]), error => done(String(error)));"#,
        martd.address
    ));
    assert_eq!((&got[0]["data"], &got[1]), (&json!([{"x": 1}]), &json!("of-a-page")), "{got}");
    assert_eq!(got[2], martd.snapshot()["id"], "{got}");
}
