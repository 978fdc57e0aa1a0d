//! How an object store is reached: flags that `martd mirror` and `martd publish --to` share.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

// A heading of `--help`.
const STORE: &str = "Object store";

/// How the store of an `s3://` URL is reached. Who asks is said by the environment: AWS's variables, its file, a web identity,
/// or the machine's own role.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// Address of the store's API, where it is not AWS: http://HOST:PORT [default: AWS_ENDPOINT_URL]
    #[arg(long, help_heading = STORE, env = "MARTD_S3_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,

    /// Region of the bucket [default: AWS_REGION, or us-east-1]
    #[arg(long, help_heading = STORE, env = "MARTD_S3_REGION", value_name = "REGION")]
    pub region: Option<String>,

    /// Where the bucket stands in an address
    #[arg(long, help_heading = STORE, env = "MARTD_S3_ADDRESSING", value_enum, default_value_t)]
    pub addressing: Addressing,

    /// Talk to the store without TLS
    #[arg(long, help_heading = STORE, env = "MARTD_S3_ALLOW_HTTP", value_parser = BoolishValueParser::new())]
    pub allow_http: bool,

    /// PEM file of authorities to trust beside the system's
    #[arg(long, help_heading = STORE, env = "MARTD_S3_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// `MARTD_S3_ADDRESSING`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Addressing {
    /// In the path: HOST/BUCKET
    #[default]
    Path,
    /// In the name of the host: BUCKET.HOST
    Virtual,
}
