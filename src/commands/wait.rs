//! `martd wait`: for orchestrators that must not go on before a build is served.

use std::process::ExitCode;

use clap::Args;

use super::{EXIT_NO, EXIT_UNKNOWN, ServerArgs, complain};
use crate::config::Time;
use crate::http::client::{BuildOutcome, ClientError};

/// What `wait` needs.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The dbt invocation to wait for
    #[arg(long, value_name = "ID")]
    build: String,

    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "5m")]
    timeout: Time,

    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: WaitArgs) -> Result<ExitCode, ClientError> {
    wait_for(args.build, args.timeout, args.server).await
}

/// Waits until a build is served, and says what became of it.
pub(super) async fn wait_for(
    build: String,
    timeout: Time,
    server: ServerArgs,
) -> Result<ExitCode, ClientError> {
    Ok(match server.client().wait_for_build(&build, timeout.duration()).await {
        BuildOutcome::Published(snapshot) => {
            println!("build {build} is served in snapshot {snapshot}");
            ExitCode::SUCCESS
        }
        BuildOutcome::Held(reason) => {
            complain(&format!("build {build} is held: {reason}"), EXIT_NO)
        }
        BuildOutcome::Unknown(word) => {
            complain(&format!("build {build} is not served yet: {word}"), EXIT_UNKNOWN)
        }
    })
}
