"""A container engine of one's own out of Debian's packages, which are unpacked and not installed.

It runs in namespaces that end with whoever made them: no container, mount or network outlives a test, however that ends.
`inside` is for who makes them, `Engine` for what runs inside.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ["docker.io", "docker-compose", "debootstrap", "iptables", "iproute2"]
MIRROR = "http://deb.debian.org/debian"
# Relative: what the engine starts stays in the control group that this process is in.
CONTROL_GROUP = "martd-containers"
NEEDED = ["apt-get", "dpkg-deb", "unshare", "setpriv"]


def impossible():
    """Why there can be none here, if that is so."""
    if os.geteuid() != 0:
        return "an engine of one's own needs root"
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} is missing"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"namespaces cannot be made here: {tried.stderr.strip()}"


def fetch(cache):
    """Unpacks the packages and makes the base system, where the cache has them not yet."""
    programs, packages, base = cache / "programs", cache / "packages", cache / "base.tar"
    if not programs.exists():
        (packages / "partial").mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "update", "--quiet=2"], check=True)
        options = ["--quiet=2", "--yes", "--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={packages}"]
        subprocess.run(["apt-get", "install", *options, *PACKAGES], check=True)
        unpacked = cache / "programs.new"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True)
        shutil.rmtree(packages)
        # It is called by its plain name, and the kernel of a container host has both kinds.
        for name in ("iptables", "ip6tables"):
            link = unpacked / "usr/sbin" / name
            if not link.exists():
                link.symlink_to(f"{name}-nft")
        unpacked.rename(programs)
    if not base.exists():
        root = cache / "base.new"
        shutil.rmtree(root, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates,make", "bookworm", root, MIRROR]
        subprocess.run(command, check=True, env=environment(cache), stdout=subprocess.DEVNULL)
        # Whatever this machine trusts, for packages are fetched in the images too.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
        subprocess.run(["tar", "--create", "--file", cache / "base.tar.new", "--directory", root, "--exclude=./var/cache/apt/archives/*", "."], check=True)
        shutil.rmtree(root)
        (cache / "base.tar.new").rename(base)


def program(cache, name):
    return shutil.which(name, path=environment(cache)["PATH"])


def environment(cache):
    programs = cache / "programs"
    libraries = programs / "usr/lib/x86_64-linux-gnu"
    return os.environ | {
        "PATH": f"{programs}/usr/bin:{programs}/usr/sbin:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.fspath(libraries),
        "XTABLES_LIBDIR": f"{libraries}/xtables",
        "PYTHONPATH": f"{programs}/usr/lib/python3/dist-packages",
        "DEBOOTSTRAP_DIR": f"{programs}/usr/share/debootstrap",
        "DOCKER_BUILDKIT": "0",
    }


def inside(network, command, timeout):
    """Runs it as the first process of namespaces: when that ends, or this one, everything in them is ended."""
    own = [] if network else ["--net"]
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *own, *command]
    try:
        return subprocess.run(command, timeout=timeout).returncode
    finally:
        forget_control_groups()


def forget_control_groups():
    """They outlive their processes, and the group that this process is in could not be removed before them."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        group = line.split(":", 2)[2].strip("/")
        for top in Path("/sys/fs/cgroup").glob(f"*/{group}/{CONTROL_GROUP}" if group else f"*/{CONTROL_GROUP}"):
            for folder, _, _ in os.walk(top, topdown=False):
                os.rmdir(folder)


class Engine:
    """A daemon whose data is in `work`. Without a network of its own it can only build."""

    def __init__(self, cache, work, network):
        self.cache, self.work = cache, work
        self.host = f"unix://{work}/engine/docker.sock"
        self.environment = environment(cache) | {"DOCKER_HOST": self.host, "HOME": os.fspath(work)}
        self.options = ["--bridge=none", "--iptables=false", "--ip6tables=false"] if network else []
        self.is_alone = not network

    def __enter__(self):
        state = self.work / "engine"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        if self.is_alone:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True, env=self.environment)
        command = ["dockerd", "--data-root", self.work / "data", "--exec-root", state / "exec", "--pidfile", state / "pid"]
        command += ["--host", self.host, f"--cgroup-parent={CONTROL_GROUP}", "--log-level=warn", *self.options]
        self.log = (state / "log").open("ab")
        self.daemon = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while self.run("docker", "version", check=False).returncode != 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the engine does not start:\n{(state / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.daemon.terminate()
        self.daemon.wait(60)

    def run(self, *command, check=True, **named):
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, **named)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        return result

    def docker(self, *arguments, **named):
        return self.run("docker", *arguments, **named).stdout

    def show(self, *command, **named):
        """The same with its output where this one's goes."""
        print("==>", *command, flush=True)
        subprocess.run(command, env=self.environment, check=True, stdout=sys.stdout, stderr=sys.stderr, **named)
