//! A user and mount namespace: in it a test may mount, and lower the kernel's limits, as any user.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Lives as long as this does, and so do the mounts in it.
pub struct Namespace {
    /// Holds the namespace open until its standard input is closed.
    holder: Child,
}

impl Namespace {
    /// `None`, and a line that says so, where the kernel or a missing `unshare` does not allow it.
    pub fn new() -> Option<Self> {
        let spawned = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let outcome = spawned.and_then(|mut holder| {
            let mut line = String::new();
            BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line)?;
            match line.as_str() {
                "ready\n" => Ok(Self { holder }),
                _ => Err(std::io::Error::other(format!("unshare: {}", holder.wait()?))),
            }
        });
        match outcome {
            Ok(namespace) => Some(namespace),
            Err(error) => {
                println!("SKIPPED: no user namespaces here, so nothing can be mounted ({error})");
                None
            }
        }
    }

    /// What starts a program inside.
    pub fn launcher(&self) -> [String; 6] {
        ["nsenter", "--user", "--mount", "--preserve-credentials", "--target"]
            .map(str::to_owned)
            .into_iter()
            .chain([self.holder.id().to_string()])
            .collect::<Vec<_>>()
            .try_into()
            .expect("six words")
    }

    /// Runs a shell script inside, with these paths as `$1`, `$2`, and tells whether it succeeded.
    pub fn attempt(&self, script: &str, paths: &[&Path]) -> bool {
        let [program, options @ ..] = self.launcher();
        let status = Command::new(program)
            .args(options)
            .args(["sh", "-eu", "-c", script, "sh"])
            .args(paths)
            .stderr(Stdio::null())
            .status();
        status.expect("nsenter").success()
    }

    /// Runs a shell script inside, which must succeed.
    pub fn run(&self, script: &str, paths: &[&Path]) {
        assert!(self.attempt(script, paths), "{script}");
    }

    /// The same file as seen from outside.
    pub fn path(&self, inside: &Path) -> PathBuf {
        let inside = inside.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
