//! The thread that starts engine processes.
//!
//! It is there before the front gives up rights, for an engine has to raise its own badness for the
//! kernel's out-of-memory killer, and gives up more rights than the front does. And it lives as long as
//! the front: the kernel ends an engine with the thread that started it.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};
use std::thread;

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
    pub(super) fn spawn(&self, command: Command) -> io::Result<Child> {
        let (sender, child) = mpsc::channel();
        let gone = |_| io::Error::other("the spawner is gone");
        self.0.send((command, sender)).map_err(|_| io::Error::other("the spawner is gone"))?;
        child.recv().map_err(gone)?
    }
}
