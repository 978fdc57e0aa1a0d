//! Where martd listens: a TCP port, a Unix socket, or sockets that systemd opened for it.
//!
//! All are opened before the process gives up its rights, so that of a Unix socket it needs no more
//! than the right to remove the file at the end.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::flag;
use listenfd::ListenFd;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Begins an address that is a Unix socket's.
pub const UNIX_PREFIX: &str = "unix:";
/// For the owner and the group; who else may ask is the group's members.
const SOCKET_MODE: Mode = Mode::from_raw_mode(0o660);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// The name of an inherited socket (`FileDescriptorName=`) that is for probes and metrics.
const ADMIN_NAME: &str = "admin";

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(UNIX_PREFIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("not an absolute path; write it as unix:/run/martd.sock"),
            None => text.parse().map(Self::Tcp).map_err(
                |_| "not an address and port; write 127.0.0.1:8321 or unix:/run/martd.sock",
            ),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Socket {
    /// Whether other machines may reach it.
    pub fn is_on_a_network(&self) -> bool {
        matches!(self, Self::Tcp(socket) if socket.local_addr().is_ok_and(|at| !at.ip().is_loopback()))
    }

    /// Where it listens, as clients write it.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(|address| address.to_string()),
            Self::Unix(socket) => socket.local_addr().map(|address| {
                address
                    .as_pathname()
                    .map_or_else(String::new, |path| Address::Unix(path.to_owned()).to_string())
            }),
        }
        .unwrap_or_default()
    }
}

/// The addresses of several sockets, for people.
pub fn addresses(sockets: &[Socket]) -> String {
    sockets.iter().map(Socket::address).collect::<Vec<_>>().join(", ")
}

/// All sockets of the process.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For everything.
    pub all: Vec<Socket>,
    /// For probes and metrics.
    pub admin: Vec<Socket>,
    /// For the PostgreSQL protocol.
    pub postgres: Vec<Socket>,
    /// Files to remove at the end.
    pub files: SocketFiles,
}

impl Sockets {
    /// Takes the sockets that systemd opened, and opens what it did not. An inherited socket takes the
    /// place of `listen`; one that is named `admin` that of `admin`.
    ///
    /// # Errors
    /// What cannot be listened on, by its setting.
    pub fn open(
        listen: &Address,
        admin: Option<&Address>,
        postgres: Option<&Address>,
    ) -> Result<Self, String> {
        let mut sockets = Self::default();
        sockets.inherit()?;
        if sockets.all.is_empty() {
            let socket = sockets.files.listen(listen, "MARTD_LISTEN")?;
            sockets.all.push(socket);
        }
        if let (Some(admin), true) = (admin, sockets.admin.is_empty()) {
            let socket = sockets.files.listen(admin, "MARTD_ADMIN_LISTEN")?;
            sockets.admin.push(socket);
        }
        if let Some(postgres) = postgres {
            let socket = sockets.files.listen(postgres, "MARTD_PG_LISTEN")?;
            sockets.postgres.push(socket);
        }
        Ok(sockets)
    }

    fn inherit(&mut self) -> Result<(), String> {
        // Asked for before listenfd takes the variables away.
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut inherited = ListenFd::from_env();
        for (index, name) in (0..inherited.len()).zip(names.split(':').chain(std::iter::repeat("")))
        {
            let socket = match inherited.take_tcp_listener(index) {
                Ok(socket) => socket.map(Socket::Tcp),
                Err(_) => inherited
                    .take_unix_listener(index)
                    .map_err(|_| {
                        format!("inherited socket {index} ({name}) is not a stream socket")
                    })?
                    .map(Socket::Unix),
            };
            if let Some(socket) = socket {
                let kind = if name == ADMIN_NAME { &mut self.admin } else { &mut self.all };
                kind.push(socket);
            }
        }
        Ok(())
    }
}

/// The files of Unix sockets that this process made. Removed when this is dropped.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<SocketFile>);

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another martd may have made its own there meanwhile.
    identity: (u64, u64),
}

impl SocketFiles {
    fn listen(&mut self, address: &Address, variable: &str) -> Result<Socket, String> {
        let failed = |reason: &dyn fmt::Display| {
            format!("{}: {address} cannot be listened on: {reason}", flag::of(variable))
        };
        match address {
            Address::Tcp(address) => {
                let socket = TcpListener::bind(address).map_err(|error| failed(&error))?;
                // A second `listen` changes the backlog, which the first one has made 128.
                rustix::net::listen(&socket, BACKLOG).map_err(|error| failed(&error))?;
                Ok(Socket::Tcp(socket))
            }
            Address::Unix(path) => {
                let socket = bind(path).map_err(|problem| failed(&problem))?;
                let metadata = fs::symlink_metadata(path).map_err(|error| failed(&error))?;
                let identity = (metadata.dev(), metadata.ino());
                self.0.push(SocketFile { path: path.clone(), identity });
                Ok(Socket::Unix(socket))
            }
        }
    }

    /// The directories in which files are to be removed.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|file| file.path.parent())
    }

    /// Removes them; for an end that drops nothing.
    pub fn remove(&self) {
        for SocketFile { path, identity } in &self.0 {
            let own = fs::symlink_metadata(path)
                .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == *identity);
            if own {
                let _ = fs::remove_file(path); // at the end nobody can do anything about it
            }
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Why a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("another process listens there; stop it, or choose another path")]
    Live,
    #[error("something there is not a socket; remove it, or choose another path")]
    NoSocket,
    #[error("it is too long for a socket (107 bytes at most)")]
    TooLong,
    #[error("{0}")]
    Failed(#[from] Errno),
}

/// Listens on a path, in the place of a socket whose process has died.
fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let address = SocketAddrUnix::new(path).map_err(|_| BindError::TooLong)?;
    // Two that start at once must not both find the same dead socket: the second would remove what
    // the first has made.
    let parent = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(BindError::NoSocket);
        }
        if is_live(&address)? {
            return Err(BindError::Live);
        }
        rustix::fs::unlink(path)?;
    }
    let socket = stream_socket(SocketFlags::CLOEXEC)?;
    // Before it has a name, so that it is never open to more than it should be; again afterwards,
    // because the umask took some of it.
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    rustix::net::bind(&socket, &address)?;
    rustix::fs::chmodat(CWD, path, SOCKET_MODE, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn stream_socket(flags: SocketFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether somebody listens on a socket. A full backlog is somebody's.
fn is_live(address: &SocketAddrUnix) -> Result<bool, Errno> {
    let socket = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes sockets ready for an asynchronous runtime.
///
/// # Errors
/// When one is not a socket any more.
pub fn set_nonblocking(sockets: &[Socket]) -> io::Result<()> {
    sockets.iter().try_for_each(|socket| match socket {
        Socket::Tcp(socket) => socket.set_nonblocking(true),
        Socket::Unix(socket) => socket.set_nonblocking(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["127.0.0.1:8321", "[::1]:80", "unix:/run/martd/martd.sock"] {
            assert_eq!(text.parse::<Address>().expect("an address").to_string(), text);
        }
        for (text, expected) in [
            ("unix:martd.sock", "not an absolute path"),
            ("/run/martd.sock", "not an address"),
            ("localhost", "not an address"),
        ] {
            let problem = text.parse::<Address>().expect_err(text);
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("martd.sock");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;

        let live = bind(&path).expect("nothing was there");
        assert_eq!(mode(&path), 0o660);
        assert!(matches!(bind(&path), Err(BindError::Live)));
        drop(live); // as a process that was killed leaves it
        let mut files = SocketFiles::default();
        let address = Address::Unix(path.clone());
        let second = files.listen(&address, "MARTD_LISTEN").expect("the first is dead");
        assert_eq!(second.address(), address.to_string());

        let problem = files.listen(&address, "MARTD_LISTEN").expect_err("the second lives");
        assert!(problem.starts_with("--listen (MARTD_LISTEN): unix:/"), "{problem}");
        assert!(problem.ends_with("stop it, or choose another path"), "{problem}");

        fs::remove_file(&path).expect("removed by somebody");
        let third = bind(&path).expect("nothing is there");
        drop(files);
        assert!(path.exists(), "the third's file is not the second's to remove");
        drop((second, third));
    }

    #[test]
    fn a_live_socket_with_a_full_backlog_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("busy.sock");
        let address = SocketAddrUnix::new(&path).expect("short");
        let busy = stream_socket(SocketFlags::CLOEXEC).expect("a socket");
        rustix::net::bind(&busy, &address).expect("bind");
        rustix::net::listen(&busy, 0).expect("listen");
        let _waiting = std::os::unix::net::UnixStream::connect(&path).expect("the only place");
        assert!(matches!(bind(&path), Err(BindError::Live)));
    }

    #[test]
    fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notes.txt");
        fs::write(&path, "x").expect("write");
        assert!(matches!(bind(&path), Err(BindError::NoSocket)));
        assert_eq!(fs::read(&path).expect("still there"), b"x");
        let long = dir.path().join("x".repeat(108));
        assert!(matches!(bind(&long), Err(BindError::TooLong)));
    }
}
