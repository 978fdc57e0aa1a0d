"""The compose file for real: `live.py MARTD LICENSES` builds the images and runs `docker-compose up`, with what `make` built.

It needs root and Debian's packages, and says so where it cannot have them. With --if-changed it runs only when something
that it is about has changed since it passed. Nothing of it is left but the cache: packages and a base system, 450 MB.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import engine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "martd/containers"
ABOUT = ["Dockerfile", ".dockerignore", "docker-compose.yml", "deploy", "dbt", "examples/backend/Dockerfile", "scripts/compose-files", "tests/containers"]
STAND_INS = {
    "python": "python:3.11-slim-bookworm",
    "node": "node:20-bookworm-slim",
    "rust": "rust:1.95-bookworm",
    "postgres": "postgres:16-bookworm",
    "distroless": "gcr.io/distroless/cc-debian12:nonroot",
}
LONGEST_S = 15 * 60
# Whoever runs `make compose-files`; the image's own user is another.
HOST_USER = 1000


def what_it_is_about():
    tracked = subprocess.run(["git", "ls-files", "-z", *ABOUT], cwd=ROOT, check=True, capture_output=True).stdout
    digest = hashlib.sha256()
    for name in sorted(filter(None, tracked.split(b"\0"))):
        path = ROOT / os.fsdecode(name)
        digest.update(name + b"\0" + (hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"gone"))
    return digest.hexdigest()


def copy_tree(destination):
    """What git knows of the tree: no data, secrets or builds."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    names = [os.fsdecode(name) for name in files.split(b"\0") if name and (ROOT / os.fsdecode(name)).exists()]
    for name in names:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, destination / name, follow_symlinks=False)
    for path in [destination, *destination.rglob("*")]:
        os.chown(path, HOST_USER, HOST_USER, follow_symlinks=False)
    as_user = ["setpriv", f"--reuid={HOST_USER}", f"--regid={HOST_USER}", "--clear-groups"]
    subprocess.run([*as_user, "make", "--silent", "compose-files"], cwd=destination, check=True, env=os.environ | {"HOME": "/"})


def prepare(work, martd, licenses):
    copy_tree(work / "tree")
    context = work / "stand-ins"
    shutil.copytree(HERE / "stand-ins", context)
    subprocess.run(["strip", "--strip-debug", "-o", context / "martd", martd], check=True)
    shutil.copy(licenses, context / "THIRD-PARTY-LICENSES")
    package = subprocess.run(["make", "--silent", "name-of-duckdb"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["npm", "pack", "--silent", package], cwd=context, check=True, stdout=subprocess.DEVNULL)


def build(work):
    """All images, with the network that this machine has."""
    with engine.Engine(CACHE, work, network=True) as own:
        own.docker("import", CACHE / "base.tar", "base")
        for stage, name in STAND_INS.items():
            own.show("docker", "build", "--quiet", "--network=host", f"--target={stage}", f"--tag={name}", work / "stand-ins")
        import yaml

        for service in yaml.safe_load((work / "tree/docker-compose.yml").read_text())["services"].values():
            if "build" in service:
                how = service["build"] if isinstance(service["build"], dict) else {"context": service["build"]}
                context = work / "tree" / how["context"]
                options = [f"--target={how['target']}"] if "target" in how else []
                started = time.monotonic()
                file = context / how.get("dockerfile", "Dockerfile")
                own.show("docker", "build", "--quiet", "--network=host", f"--tag={service['image']}", f"--file={file}", *options, context)
                print(f"    {time.monotonic() - started:.0f} s", flush=True)
        print(own.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}"), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("martd", type=Path)
    parser.add_argument("licenses", type=Path)
    parser.add_argument("--if-changed", action="store_true")
    parser.add_argument("--work", type=Path, help="a folder that stays")
    parser.add_argument("--only", nargs="*", help="steps: prepare, build, run")
    parser.add_argument("--inside", choices=["build", "run"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside == "build":
        build(arguments.work)
        return 0
    if arguments.inside == "run":
        import up

        return up.run(CACHE, arguments.work)

    if reason := engine.impossible():
        print(f"SKIPPED: containers: {reason}")
        return 0
    stamp, now = CACHE / "passed", what_it_is_about()
    if arguments.if_changed and stamp.exists() and stamp.read_text() == now:
        print("SKIPPED: containers: nothing of theirs has changed since they passed (CONTAINERS=1 runs them)")
        return 0
    steps = arguments.only or ["prepare", "build", "run"]
    started = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = (CACHE / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        engine.fetch(CACHE)
    except subprocess.CalledProcessError as error:
        print(f"SKIPPED: containers: Debian's packages are not to be had: {error}")
        return 0
    print(f"==> an engine is there: {time.monotonic() - started:.0f} s", flush=True)
    # Within reach of another user than root, and always the same: what a killed run has left, the next one takes away.
    work = arguments.work or Path(tempfile.gettempdir()) / "martd-containers"
    if not arguments.work:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o755, exist_ok=True)
    try:
        if "prepare" in steps:
            prepare(work, arguments.martd, arguments.licenses)
        for step in ("build", "run"):
            if step in steps:
                again = [sys.executable, HERE / "live.py", arguments.martd, arguments.licenses, "--work", work, "--inside", step]
                left = LONGEST_S - (time.monotonic() - started)
                if code := engine.inside(step == "build", again, left):
                    return code
                print(f"==> {step}: {time.monotonic() - started:.0f} s", flush=True)
    finally:
        if not arguments.work:
            shutil.rmtree(work, ignore_errors=True)
    if not arguments.only:
        stamp.write_text(now)
    return 0


if __name__ == "__main__":
    sys.exit(main())
