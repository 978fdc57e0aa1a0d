//! Notices that the mart directory may have changed.
//!
//! Events are hints: they carry nothing and say only "look again". Where the kernel does not tell
//! (network file systems, limits reached), the refresh thread looks again by itself; this module
//! says so, and why. It also notices what inotify never tells: that the path has come to mean
//! another directory, because something was mounted there, or a parent or a link was exchanged.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
use serde::Serialize;
use tracing::{info, warn};

use crate::hooks;
use crate::ledger::RECORDS;
use crate::mart_dir::MartDir;
use crate::scan::{CLOCK_TICK, DirId, OpenDir};

/// `MARTD_WATCH`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchSetting {
    /// inotify; polling on a file system of a network, where inotify misses what other machines do.
    #[default]
    Auto,
    /// inotify on every file system; polling only while it cannot be had.
    Inotify,
    /// Polling, four times a second.
    Poll,
}

/// How often the directory is looked at when nothing tells of changes.
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked at although the kernel tells: a lost event costs no more than this.
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the path is asked which directory it means: one `statx`.
pub const GLANCE_INTERVAL: Duration = Duration::from_millis(500);
/// How often inotify is tried again after it could not be had.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Clocks of servers may lag a second or two.
const NETWORK_CLOCK_TICK: Duration = Duration::from_secs(2);

/// How changes are noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchMode {
    /// The kernel tells.
    Inotify,
    /// The directory is looked at again and again.
    #[default]
    Poll,
}

/// Called when the directory may have changed, on any thread.
type Hint = Arc<dyn Fn() + Send + Sync>;

/// Watches the mart directory, anew when it becomes another one.
pub struct Watch {
    setting: WatchSetting,
    hint: Hint,
    active: Option<Active>,
    degraded: Option<Degraded>,
}

#[derive(Debug)]
struct Active {
    watcher: RecommendedWatcher,
    dir: DirId,
    /// The directory of records, which may come later.
    records: Option<DirId>,
    /// Marts that are directories.
    marts: HashMap<String, DirId>,
}

/// inotify was wanted and could not be had.
#[derive(Debug)]
struct Degraded {
    reason: String,
    dir: DirId,
    tried: Instant,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Watch {
    /// A watch that calls `hint` when the directory may have changed.
    pub fn new(setting: WatchSetting, hint: impl Fn() + Send + Sync + 'static) -> Self {
        Self { setting, hint: Arc::new(hint), active: None, degraded: None }
    }

    /// How changes are noticed at present.
    pub fn mode(&self) -> WatchMode {
        if self.active.is_some() { WatchMode::Inotify } else { WatchMode::Poll }
    }

    /// Why changes are noticed by polling although inotify was wanted.
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_ref().map(|degraded| degraded.reason.as_str())
    }

    /// How long to wait for a hint before looking without one.
    pub fn interval(&self) -> Duration {
        match self.mode() {
            WatchMode::Inotify => RECONCILE_INTERVAL,
            WatchMode::Poll => POLL_INTERVAL,
        }
    }

    /// Whether the path means another directory than the one that is watched, or none.
    pub fn is_astray(&self, dir: &MartDir) -> bool {
        self.active.as_ref().is_some_and(|active| dir.id().ok() != Some(active.dir))
    }

    /// Makes sure that this directory is watched. Call it before a scan, so that nothing falls
    /// between the two.
    pub fn ensure(&mut self, dir: &OpenDir, now: Instant) {
        self.ensure_marts(dir, now);
        if let Some(active) = &mut self.active {
            active.ensure_records(dir);
        }
    }

    /// Makes sure that a directory of parts is watched, and all in it. Call it before that is listed. Without a
    /// watch it is seen with the next scan.
    pub fn ensure_parts(&mut self, mart: &str, parts: &OpenDir) {
        if let Some(active) = &mut self.active {
            active.ensure_parts(mart, parts);
        }
    }

    fn ensure_marts(&mut self, dir: &OpenDir, now: Instant) {
        if self.setting == WatchSetting::Poll
            || self.active.as_ref().is_some_and(|active| active.dir == dir.id())
        {
            return;
        }
        self.active = None;
        if self.degraded.as_ref().is_some_and(|degraded| {
            let again = hooks::shortened("inotify", RETRY_INTERVAL);
            degraded.dir == dir.id() && now.duration_since(degraded.tried) < again
        }) {
            return;
        }
        let outcome = match (self.setting, network_file_system(dir)) {
            (WatchSetting::Auto, Some(name)) => {
                Err(format!("{name} does not tell of changes that other machines make"))
            }
            _ => self.start(dir),
        };
        match outcome {
            Ok(watcher) => {
                if self.degraded.take().is_some() {
                    info!("inotify works again");
                }
                self.active =
                    Some(Active { watcher, dir: dir.id(), records: None, marts: HashMap::new() });
            }
            Err(reason) => {
                if self.degraded() != Some(&reason) {
                    warn!(reason, "polling the mart directory");
                }
                self.degraded = Some(Degraded { reason, dir: dir.id(), tried: now });
            }
        }
    }

    /// Forgets a directory that is gone.
    pub fn lost(&mut self) {
        self.active = None;
    }

    fn start(&self, dir: &OpenDir) -> Result<RecommendedWatcher, String> {
        let hint = Arc::clone(&self.hint);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.as_ref().is_ok_and(notify::Event::need_rescan) {
                    warn!("the kernel dropped events of the mart directory: looking again");
                }
                // martd's own reading opens and closes files as well; that is no change.
                let change = event.as_ref().map_or(true, |event| match event.kind {
                    EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
                    _ => true,
                });
                if change {
                    hint();
                }
            })
            .map_err(|error| explain(&error))?;
        watch(&mut watcher, dir, "").map_err(|error| explain(&error))?;
        Ok(watcher)
    }
}

impl Active {
    /// Watches the records, too. Without a watch they are seen with the next scan.
    fn ensure_records(&mut self, dir: &OpenDir) {
        let Ok(records) = dir.open_dir(RECORDS) else {
            self.records = None;
            return;
        };
        if self.records != Some(records.id()) {
            match watch(&mut self.watcher, &records, "/.") {
                Ok(()) => self.records = Some(records.id()),
                Err(error) => warn!(reason = explain(&error), "{RECORDS} is not watched"),
            }
        }
    }
}

impl Active {
    fn ensure_parts(&mut self, mart: &str, parts: &OpenDir) {
        if self.marts.get(mart) == Some(&parts.id()) {
            return;
        }
        self.marts.insert(mart.to_owned(), parts.id());
        // By its path: the watcher goes on to what is made in it later.
        let path =
            std::fs::read_link(format!("/proc/self/fd/{}", parts.as_fd().as_fd().as_raw_fd()));
        let watched = path.map_err(notify::Error::io).and_then(|path| {
            let _ = self.watcher.unwatch(&path); // of a directory that was there before it
            self.watcher.watch(&path, RecursiveMode::Recursive)
        });
        if let Err(error) = watched {
            warn!(mart, reason = explain(&error), "a directory of parts is not watched");
        }
    }
}

/// Watches the directory that is open, whatever its path means by now. `suffix` tells descriptors apart
/// that have had the same number.
fn watch(watcher: &mut RecommendedWatcher, dir: &OpenDir, suffix: &str) -> notify::Result<()> {
    let path = format!("/proc/self/fd/{}{suffix}", dir.as_fd().as_fd().as_raw_fd());
    watcher.watch(path.as_ref(), RecursiveMode::NonRecursive)
}

/// Names the limit that an operator would have to raise.
fn explain(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "all inotify watches of this user are taken; raise fs.inotify.max_user_watches"
                .to_owned()
        }
        ErrorKind::Io(error) if Errno::from_io_error(error) == Some(Errno::MFILE) => {
            "all inotify instances of this user are taken, or all descriptors of martd; \
             raise fs.inotify.max_user_instances"
                .to_owned()
        }
        _ => format!("inotify cannot be had: {error}"),
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
