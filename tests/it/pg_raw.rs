//! The PostgreSQL protocol by its bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// Sends these bytes, and reads until martd ends the connection.
pub(crate) fn answer_to(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("martd listens");
    stream.set_read_timeout(Some(crate::harness::PATIENCE)).expect("a socket");
    stream.write_all(bytes).expect("taken");
    rest_of(&mut stream)
}

/// What comes until martd ends the connection, which it must.
pub(crate) fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).map_err(|error| error.kind());
    // A reset is an end, too; patience that is over is none.
    assert!(!matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "it did not end");
    answer
}

/// The start-up message of a user.
pub(crate) fn startup(user: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    body.extend_from_slice(format!("user\0{user}\0\0").as_bytes());
    let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
    message.append(&mut body);
    message
}

/// A client that takes the protocol at its bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn connect(port: u16) -> Self {
        Self::connect_as(port, "anyone", None)
    }

    pub(crate) fn connect_as(port: u16, user: &str, password: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("martd listens");
        stream.set_read_timeout(Some(crate::harness::PATIENCE)).expect("a socket");
        stream.write_all(&startup(user)).expect("taken");
        if let Some(password) = password {
            let length = (password.len() as u32 + 5).to_be_bytes();
            let message = [b"p", &length[..], password.as_bytes(), b"\0"].concat();
            stream.write_all(&message).expect("taken");
        }
        let mut raw = Self(stream);
        raw.answer();
        raw
    }

    pub(crate) fn send(&mut self, sql: &str) {
        let length = (sql.len() as u32 + 5).to_be_bytes();
        let message = [b"Q", &length[..], sql.as_bytes(), b"\0"].concat();
        self.0.write_all(&message).expect("taken");
    }

    /// The messages up to the next that says that martd is ready.
    pub(crate) fn answer(&mut self) -> Vec<(u8, String)> {
        let mut messages = Vec::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).expect("a message");
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; length as usize - 4];
            self.0.read_exact(&mut body).expect("its body");
            if head[0] == b'Z' {
                return messages;
            }
            messages.push((head[0], String::from_utf8_lossy(&body).into_owned()));
        }
    }

    pub(crate) fn ask(&mut self, sql: &str) -> Vec<(u8, String)> {
        self.send(sql);
        self.answer()
    }

    /// The same by the extended protocol, with these values of its parameters: prepared, described, bound,
    /// described, run.
    pub(crate) fn prepared(&mut self, sql: &str, values: &[&str]) -> Vec<(u8, String)> {
        self.extended(sql, values, true)
    }

    /// The same without the first description, so that nobody is asked for the types of the values.
    pub(crate) fn bound(&mut self, sql: &str, values: &[&str]) -> Vec<(u8, String)> {
        self.extended(sql, values, false)
    }

    fn extended(&mut self, sql: &str, values: &[&str], describes: bool) -> Vec<(u8, String)> {
        let count = u16::try_from(values.len()).expect("few").to_be_bytes();
        let mut bind = [b"\0\0\0\0", &count[..]].concat();
        for value in values {
            bind.extend_from_slice(&(value.len() as u32).to_be_bytes());
            bind.extend_from_slice(value.as_bytes());
        }
        bind.extend_from_slice(&[0, 0]);
        let parse = [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
        let messages: [(u8, &[u8]); 6] = [
            (b'P', &parse),
            (b'D', b"S\0"),
            (b'B', &bind),
            (b'D', b"P\0"),
            (b'E', b"\0\0\0\0\0"),
            (b'S', b""),
        ];
        let messages = messages.into_iter().filter(|(_, body)| describes || *body != b"S\0");
        for (kind, body) in messages {
            let length = (body.len() as u32 + 4).to_be_bytes();
            self.0.write_all(&[&[kind], &length[..], body].concat()).expect("taken");
        }
        self.answer()
    }

    /// What comes of a statement in each way in which one can be asked.
    pub(crate) fn in_each_way(&mut self, sql: &str) -> Vec<(&'static str, Vec<(u8, String)>)> {
        let simple = self.ask(sql);
        let prepared = self.prepared(sql, &[]);
        let declare = format!("DECLARE c CURSOR FOR {sql}");
        let mut cursor = |prepares: bool| {
            let mut answers = self.ask("BEGIN");
            let declared = if prepares { self.prepared(&declare, &[]) } else { self.ask(&declare) };
            answers.extend(declared);
            answers.extend(self.ask("FETCH ALL FROM c"));
            self.ask("ROLLBACK");
            answers
        };
        let (declared, prepared_cursor) = (cursor(false), cursor(true));
        vec![
            ("simple", simple),
            ("prepared", prepared),
            ("cursor", declared),
            ("prepared cursor", prepared_cursor),
        ]
    }

    /// The only value of the only row, behind the lengths that stand before it.
    pub(crate) fn value(&mut self, sql: &str) -> String {
        let answer = self.ask(sql);
        let rows: Vec<_> = answer.iter().filter(|(kind, _)| *kind == b'D').collect();
        assert_eq!(rows.len(), 1, "{sql}: {answer:?}");
        rows[0].1.trim_start_matches(|char: char| char.is_control()).to_owned()
    }
}
