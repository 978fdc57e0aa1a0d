//! The thread that starts martd's other processes: engines and builders.
//!
//! It is there before the front gives up rights, for they have to raise their own badness for the kernel's
//! out-of-memory killer, and give up more rights than the front does. And it lives as long as the front: the
//! kernel ends an engine with the thread that started it.

use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts processes. A clone does it on the same thread.
#[derive(Debug, Clone)]
pub struct Spawner(Sender<Order>);

impl Spawner {
    /// Starts the thread. It ends with the last clone.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start() -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            while let Ok((mut command, child)) = inbox.recv() {
                let _ = child.send(command.spawn()); // it is waited for
            }
        })?;
        Ok(Self(orders))
    }

    /// Starts a process.
    ///
    /// # Errors
    /// That of starting it.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (sender, child) = mpsc::channel();
        let gone = || io::Error::other("the spawner is gone");
        self.0.send((command, sender)).map_err(|_| gone())?;
        child.recv().map_err(|_| gone())?
    }
}

/// In a process that was started so: what a terminal or a service manager tells all processes at once is the
/// front's matter, which may have statements to finish. Its own end, and the socket's, end this one.
///
/// # Errors
/// When a signal cannot be caught.
pub fn leave_signals_to_the_front() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    Ok(())
}
