//! Clients of the PostgreSQL protocol that are unusual, wrong or greedy.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{PATIENCE, Root, Tokens, wait_for};
use crate::pg_raw::{Raw, answer_to, rest_of, startup};
use crate::postgres::{BIG, python, said, start};
use crate::writers::Writer;

#[test]
fn no_client_is_misread_or_makes_a_panic() {
    let root = Root::new();
    Writer::new().land(&root, "big", BIG);
    let (martd, port) = start(&root, &[]);
    let output = python("rough.py", &[&port.to_string()]);
    let panics: Vec<_> = martd.log().into_iter().filter(serde_json::Value::is_string).collect();
    assert!(panics.is_empty(), "what is no line of the log: {:?}", &panics[..panics.len().min(3)]);
    assert!(output.status.success(), "{}", said(&output));
}

/// The password message of a token.
fn password(token: &str) -> Vec<u8> {
    let length = (token.len() as u32 + 5).to_be_bytes();
    [b"p", &length[..], token.as_bytes(), b"\0"].concat()
}

/// A client with a token, unless it is refused.
fn enter(port: u16, token: &str) -> Option<Raw> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("martd listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(&[startup("anyone"), password(token)].concat()).expect("taken");
    // The question for the password, then whether that will do.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).expect("an answer");
    if answer[9] == b'E' {
        return None;
    }
    stream.read_exact(&mut [0; 8]).expect("the rest of it");
    let mut client = Raw(stream);
    client.answer();
    Some(client)
}

#[test]
fn no_client_keeps_the_others_out() {
    let root = Root::new();
    Writer::new().land(&root, "one", "SELECT 1 AS x");
    let tokens = Tokens::new(3);
    let settings = [("MARTD_MAX_CONNECTIONS", "8"), ("MARTD_TOKEN_FILE", tokens.file())];
    let (_martd, port) = start(&root, &settings);
    let token = |number| tokens.bearer(number).trim_start_matches("Bearer ").to_owned();
    let connect = |number| Raw::connect_as(port, "anyone", Some(&token(number)));
    let refused = |number| {
        let hello = [startup("anyone"), password(&token(number))].concat();
        String::from_utf8_lossy(&answer_to(port, &hello)).into_owned()
    };
    // Those who say nothing give way, however many they are.
    let silent: Vec<_> = (0..60).map(|_| TcpStream::connect(("127.0.0.1", port))).collect();
    assert_eq!(connect(0).value("SELECT x FROM mart.one").as_str(), "1");
    drop(silent);
    // One has all, the first of them in a transaction; it gets no more…
    let mut greedy: Vec<Raw> = (0..8).map(|_| connect(0)).collect();
    greedy[0].ask("BEGIN");
    assert!(refused(0).contains("C53300"), "no more for who has them all");
    // …and another takes the place of the one that was idle the longest.
    greedy[1].ask("SELECT x FROM mart.one");
    let mut other = wait_for("another client's place", || enter(port, &token(1)));
    assert_eq!(other.value("SELECT x FROM mart.one"), "1");
    let told = String::from_utf8_lossy(&rest_of(&mut greedy[2].0)).into_owned();
    assert!(told.contains("C57P05") && told.contains("MARTD_MAX_CONNECTIONS"), "{told}");
    for index in [0, 1, 3, 4, 5, 6, 7] {
        assert_eq!(greedy[index].value("SELECT x FROM mart.one"), "1", "the {index}th stays");
    }
    // Who asks for TLS first is told why, too.
    let asks_tls = [&[0, 0, 0, 8, 4, 210, 22, 47][..], &startup("anyone"), &password(&token(0))];
    let answer = answer_to(port, &asks_tls.concat());
    assert_eq!(answer[0], b'N');
    assert!(String::from_utf8_lossy(&answer).contains("C53300"), "after the answer about TLS");
    assert_eq!(other.value("SELECT x FROM mart.one"), "1");
}
