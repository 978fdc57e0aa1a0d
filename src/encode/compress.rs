//! Compression of answers, on the thread that encodes them: part by part, and a client can read each as soon
//! as it has it.

use std::io::Write as _;

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use zstd::stream::write::Encoder as ZstdEncoder;

/// Less than this is better sent as it is: it fits into one network packet either way.
const WORTHWHILE_BYTES: usize = 1_400;
/// At a higher level of either, queries would wait for the compressor longer than for DuckDB and the network.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::fast();
const ZSTD_LEVEL: i32 = 1;

/// How an answer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Coding {
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// Not at all.
    Identity,
}

impl Coding {
    /// All codings, the best first.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Identity];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }
}

/// How an answer may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codings {
    /// The one that the client likes best.
    pub best: Coding,
    /// Whether it also takes an answer that is not compressed.
    pub identity: bool,
}

impl Codings {
    /// The one for an answer that is known as a whole.
    pub fn for_whole(self, bytes: usize) -> Coding {
        if self.identity && bytes < WORTHWHILE_BYTES { Coding::Identity } else { self.best }
    }
}

/// Compresses one answer.
pub struct Compressor(Stream);

enum Stream {
    Identity,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

const IN_MEMORY: &str = "writing to memory does not fail";

impl Compressor {
    /// Begins.
    ///
    /// # Panics
    /// Never: the level is one of zstd's.
    pub fn new(coding: Coding) -> Self {
        Self(match coding {
            Coding::Identity => Stream::Identity,
            Coding::Gzip => Stream::Gzip(GzEncoder::new(Vec::new(), GZIP_LEVEL)),
            Coding::Zstd => Stream::Zstd(
                ZstdEncoder::new(Vec::new(), ZSTD_LEVEL).expect("the level is one of zstd's"),
            ),
        })
    }

    /// Compresses a part that others will follow; `None` when it is sent as it is.
    pub fn part(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        match &mut self.0 {
            Stream::Identity => None,
            Stream::Gzip(encoder) => {
                encoder.write_all(bytes).and_then(|()| encoder.flush()).expect(IN_MEMORY);
                Some(std::mem::take(encoder.get_mut()))
            }
            Stream::Zstd(encoder) => {
                encoder.write_all(bytes).and_then(|()| encoder.flush()).expect(IN_MEMORY);
                Some(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// Compresses the last part; `None` when it is sent as it is.
    pub fn last(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self.0 {
            Stream::Identity => None,
            Stream::Gzip(mut encoder) => {
                encoder.write_all(bytes).expect(IN_MEMORY);
                Some(encoder.finish().expect(IN_MEMORY))
            }
            Stream::Zstd(mut encoder) => {
                encoder.write_all(bytes).expect(IN_MEMORY);
                Some(encoder.finish().expect(IN_MEMORY))
            }
        }
    }
}
