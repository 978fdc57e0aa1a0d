//! Compression of answers: on the thread that encodes them, part by part, each of which the client
//! can read as soon as it has it.

use std::io::Write as _;

use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

/// Less than this is better sent as it is: it fits into one network packet either way.
pub(super) const WORTHWHILE_BYTES: usize = 1_400;
/// Both levels are the ones from which on a query waits for the compressor rather than for DuckDB
/// or the network.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::fast();
const ZSTD_LEVEL: i32 = 1;

/// How an answer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Coding {
    Zstd,
    Gzip,
    Identity,
}

impl Coding {
    /// All codings, the best first.
    pub(super) const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Identity];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }
}

/// Compresses one answer.
pub(super) enum Compressor {
    Identity,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

const IN_MEMORY: &str = "writing to memory does not fail";

impl Compressor {
    pub(super) fn new(coding: Coding) -> Self {
        match coding {
            Coding::Identity => Self::Identity,
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), GZIP_LEVEL)),
            Coding::Zstd => Self::Zstd(
                ZstdEncoder::new(Vec::new(), ZSTD_LEVEL).expect("the level is one of zstd's"),
            ),
        }
    }

    /// Compresses a part that others will follow; `None` when it is sent as it is.
    pub(super) fn part(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Identity => None,
            Self::Gzip(encoder) => {
                encoder.write_all(bytes).and_then(|()| encoder.flush()).expect(IN_MEMORY);
                Some(std::mem::take(encoder.get_mut()))
            }
            Self::Zstd(encoder) => {
                encoder.write_all(bytes).and_then(|()| encoder.flush()).expect(IN_MEMORY);
                Some(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// Compresses the last part; `None` when it is sent as it is.
    pub(super) fn last(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Identity => None,
            Self::Gzip(mut encoder) => {
                encoder.write_all(bytes).expect(IN_MEMORY);
                Some(encoder.finish().expect(IN_MEMORY))
            }
            Self::Zstd(mut encoder) => {
                encoder.write_all(bytes).expect(IN_MEMORY);
                Some(encoder.finish().expect(IN_MEMORY))
            }
        }
    }
}
