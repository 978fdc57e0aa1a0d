//! Notices that the mart directory may have changed.
//!
//! Events are hints: they carry nothing and say only "look again". Where the kernel does not tell
//! (network file systems, limits reached), the refresh thread looks again by itself; this module
//! says so, and why.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::{info, warn};

use crate::catalog::WatchMode;
use crate::refresh::Mailbox;
use crate::scan::{DirId, OpenDir};

/// `MARTD_WATCH`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchSetting {
    /// inotify where it works, polling elsewhere.
    #[default]
    Auto,
    /// inotify; polling only while it cannot be had.
    Inotify,
    /// Polling.
    Poll,
}

/// How often the directory is looked at when nothing tells of changes.
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked at although the kernel tells: a lost event costs no more than this.
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// Clocks of local file systems tick every 4 to 10 ms, those of servers may lag a second or two.
const CLOCK_TICK: Duration = Duration::from_millis(20);
const NETWORK_CLOCK_TICK: Duration = Duration::from_secs(2);

/// Watches the mart directory, anew when it becomes another one.
#[derive(Debug)]
pub struct Watch {
    setting: WatchSetting,
    mailbox: Mailbox,
    active: Option<Active>,
    degraded: Option<String>,
}

#[derive(Debug)]
struct Active {
    _watcher: RecommendedWatcher,
    dir: DirId,
}

impl Watch {
    /// A watch that posts its hints to `mailbox`.
    pub fn new(setting: WatchSetting, mailbox: Mailbox) -> Self {
        Self { setting, mailbox, active: None, degraded: None }
    }

    /// How changes are noticed at present.
    pub fn mode(&self) -> WatchMode {
        if self.active.is_some() { WatchMode::Inotify } else { WatchMode::Poll }
    }

    /// Why changes are noticed by polling although inotify was wanted.
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// How long to wait for a hint before looking without one.
    pub fn interval(&self) -> Duration {
        match self.mode() {
            WatchMode::Inotify => RECONCILE_INTERVAL,
            WatchMode::Poll => POLL_INTERVAL,
        }
    }

    /// Makes sure that this directory is watched. Call it before a scan, so that nothing falls
    /// between the two.
    pub fn ensure(&mut self, dir: &OpenDir, path: &Path) {
        if self.setting == WatchSetting::Poll {
            return;
        }
        if self.active.as_ref().is_some_and(|active| active.dir == dir.id()) {
            return;
        }
        self.active = None;
        let outcome = match (self.setting, network_file_system(dir)) {
            (WatchSetting::Auto, Some(name)) => {
                Err(format!("{name} does not tell of changes that other machines make"))
            }
            _ => self.start(path),
        };
        match outcome {
            Ok(watcher) => {
                if self.degraded.take().is_some() {
                    info!("inotify works again");
                }
                self.active = Some(Active { _watcher: watcher, dir: dir.id() });
            }
            Err(reason) => {
                if self.degraded.as_deref() != Some(&reason) {
                    warn!(reason, "polling the mart directory");
                    self.degraded = Some(reason);
                }
            }
        }
    }

    /// Forgets a directory that is gone.
    pub fn lost(&mut self) {
        self.active = None;
    }

    fn start(&self, path: &Path) -> Result<RecommendedWatcher, String> {
        let mailbox = self.mailbox.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // martd's own reading opens and closes files as well; that is no change.
                let change = event.as_ref().map_or(true, |event| match event.kind {
                    EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
                    _ => true,
                });
                if change {
                    mailbox.hint();
                }
            })
            .map_err(|error| format!("inotify cannot be had: {error}"))?;
        watcher
            .watch(path, RecursiveMode::NonRecursive)
            .map_err(|error| format!("the directory cannot be watched: {error}"))?;
        Ok(watcher)
    }
}

/// How far apart two writes must be for the file system to stamp them differently.
pub fn clock_tick(dir: &OpenDir) -> Duration {
    if network_file_system(dir).is_some() { NETWORK_CLOCK_TICK } else { CLOCK_TICK }
}

/// The name of the file system, when it is one that others change behind the kernel's back.
fn network_file_system(dir: &OpenDir) -> Option<&'static str> {
    let kind = rustix::fs::fstatfs(dir.as_fd()).ok()?.f_type as u64 & 0xffff_ffff;
    Some(match kind {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x5346_414f => "AFS",
        _ => return None,
    })
}
