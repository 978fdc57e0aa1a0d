//! `martd mirror`: the life of a mirror.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{EXIT_USAGE, complain};
use crate::mirror::StoreArgs;
use crate::settings::time;

/// What `mirror` needs.
#[derive(Debug, Args)]
pub struct MirrorArgs {
    /// What is mirrored: s3://BUCKET/PREFIX, which holds what PARQUET_DIR/mart will hold
    #[arg(env = "MARTD_MIRROR_URL", value_name = "URL")]
    url: String,

    /// The directory above `mart`, which is created if it is missing
    #[arg(long = "dir", env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,

    /// How often the bucket is listed
    #[arg(long, env = "MARTD_MIRROR_INTERVAL", value_name = "TIME", value_parser = time, default_value = "5s")]
    interval: Duration,

    /// Make the directory equal to the bucket once, and end
    #[arg(long)]
    once: bool,

    /// Replace files that other programs have written
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    store: StoreArgs,
}

#[cfg(not(feature = "object-store"))]
pub(super) fn run(_: MirrorArgs) -> ExitCode {
    complain(LACKING, EXIT_USAGE)
}

/// What a build without the feature says.
#[cfg(not(feature = "object-store"))]
pub(super) const LACKING: &str = "this build of martd has no object storage; releases, images and wheels have, \
                                  and what `make build` or `cargo build --features object-store` makes";

#[cfg(feature = "object-store")]
pub(super) fn run(args: MirrorArgs) -> ExitCode {
    use std::thread;

    use tracing::info;

    use super::{EXIT_NO, start};
    use crate::mart_dir::MartDir;
    use crate::mirror::{Bucket, FolderError, Mirror, MirrorSettings};
    use crate::{service, signal};

    if let Err(problem) = start::log() {
        return complain(&problem, EXIT_USAGE);
    }
    start::warn_of_unknown_variables();
    let bucket = match Bucket::open(&args.url, &args.store) {
        Ok(bucket) => bucket,
        Err(error) => return complain(&error.to_string(), EXIT_USAGE),
    };
    let settings = MirrorSettings {
        dir: MartDir::new(args.parquet_dir).path().to_owned(),
        interval: args.interval,
        overwrites: args.overwrite,
    };
    let mut mirror = match Mirror::open(bucket, &settings) {
        Ok(mirror) => mirror,
        Err(error @ FolderError::OtherSource { .. }) => {
            return complain(&error.to_string(), EXIT_USAGE);
        }
        Err(error) => return complain(&error.to_string(), EXIT_NO),
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(problem) => return complain(&problem, EXIT_NO),
    };
    let mut asks = None;
    if !args.once {
        match signal::listen() {
            Ok(listening) => asks = Some(listening),
            Err(error) => return complain(&format!("signals: {error}"), EXIT_NO),
        }
        let directory = settings.dir.display();
        info!(source = mirror.status().source, %directory, version = env!("CARGO_PKG_VERSION"), "mirroring");
        service::ready();
    }
    // A thread has no rights but in the PARQUET_DIR that it began with; where that is replaced, another takes over.
    loop {
        let work = || match mirror.give_up_rights() {
            Err(problem) => Some(complain(&problem, EXIT_NO)),
            Ok(()) => match &mut asks {
                Some(asks) => runtime.block_on(go_on(&mut mirror, asks)),
                None => Some(runtime.block_on(once(&mut mirror))),
            },
        };
        match thread::scope(|scope| scope.spawn(work).join()) {
            Ok(Some(code)) => return code,
            Ok(None) => {}
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Tries again while the bucket changes.
#[cfg(feature = "object-store")]
async fn once(mirror: &mut crate::mirror::Mirror) -> ExitCode {
    use super::EXIT_NO;
    use crate::mirror::Round;

    const TRIES: usize = 10;
    for _ in 0..TRIES {
        match mirror.round().await {
            Round::Equal => return ExitCode::SUCCESS,
            Round::Changed => {}
            Round::Failed => break,
        }
    }
    let reason = mirror.status().error.as_ref().map(|failure| failure.reason.clone());
    let reason = reason.unwrap_or_else(|| "the bucket changes all the time".to_owned());
    complain(&reason, EXIT_NO)
}

/// Goes round until a signal ends it; `None` when the mirror needs other rights.
#[cfg(feature = "object-store")]
async fn go_on(
    mirror: &mut crate::mirror::Mirror,
    asks: &mut tokio::sync::mpsc::UnboundedReceiver<crate::signal::Ask>,
) -> Option<ExitCode> {
    use crate::signal::Ask;

    let mut run = std::pin::pin!(mirror.run()); // what it downloads goes on after a reload
    loop {
        tokio::select! {
            () = &mut run => return None,
            ask = asks.recv() => if ask != Some(Ask::Reload) {
                tracing::info!("stopped");
                return Some(ExitCode::SUCCESS);
            },
        }
    }
}
