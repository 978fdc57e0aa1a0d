//! `martd wait`: for orchestrators that must not go on before a build is served.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value as Json;

use super::{EXIT_NO, EXIT_UNKNOWN, ServerArgs, complain};
use crate::http::client::{BuildOutcome, ClientError};
use crate::publish::CANNOT_BE_SERVED;
use crate::settings::time;

/// What `wait` needs.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The dbt invocation to wait for
    #[arg(long, value_name = "ID")]
    build: String,

    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5m")]
    timeout: Duration,

    #[command(flatten)]
    server: ServerArgs,
}

/// Whether a command comes back when what it has recorded is served.
#[derive(Debug, Args)]
pub(super) struct ServedArgs {
    /// Wait until it is served
    #[arg(long)]
    pub(super) wait: bool,

    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "5m", requires = "wait")]
    pub(super) timeout: Duration,

    #[command(flatten)]
    pub(super) server: ServerArgs,
}

pub(super) async fn run(args: WaitArgs) -> Result<ExitCode, ClientError> {
    wait_for(args.build, args.timeout, args.server).await
}

/// Waits until a build is served, and says what became of it.
pub(super) async fn wait_for(
    build: String,
    timeout: Duration,
    server: ServerArgs,
) -> Result<ExitCode, ClientError> {
    let outcome = server.client().wait_for_build(&build, timeout).await;
    Ok(tell(&build, outcome))
}

/// Waits until the build that somebody rolled back to is served.
pub(super) async fn for_rollback(
    build: String,
    timeout: Duration,
    server: ServerArgs,
) -> Result<ExitCode, ClientError> {
    let served = |state: &Json| {
        let held = &state["held"];
        let reason = held["reason"].as_str().unwrap_or_default();
        if held["rollback"] != *build {
            None
        } else if state["build"]["invocation_id"] == *build && state["verified"] == true {
            let id = state["id"].as_str().unwrap_or_default();
            Some(BuildOutcome::Published(id.to_owned()))
        } else {
            let cannot = reason.contains(CANNOT_BE_SERVED);
            cannot.then(|| BuildOutcome::Held(reason.to_owned()))
        }
    };
    let outcome = server.client().wait_for_state(timeout, served).await;
    Ok(tell(&build, outcome))
}

/// Waits until a rollback has ended, and the newest build is served.
pub(super) async fn for_release(
    newest: String,
    timeout: Duration,
    server: ServerArgs,
) -> Result<ExitCode, ClientError> {
    let (client, began) = (server.client(), Instant::now());
    let released = |state: &Json| {
        state["held"]["rollback"].is_null().then(|| BuildOutcome::Published(String::new()))
    };
    let mut outcome = client.wait_for_state(timeout, released).await;
    if matches!(outcome, BuildOutcome::Published(_)) {
        let left = timeout.saturating_sub(began.elapsed());
        outcome = client.wait_for_build(&newest, left).await;
    }
    Ok(tell(&newest, outcome))
}

fn tell(build: &str, outcome: BuildOutcome) -> ExitCode {
    match outcome {
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
    }
}
