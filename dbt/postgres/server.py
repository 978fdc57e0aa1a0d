"""A PostgreSQL of one's own, without root or a port: `server.py start DIRECTORY`, `server.py stop DIRECTORY`.

It listens on a Unix socket in its directory alone. `start` prints the POSTGRES_* settings that reach it, and may be repeated.
The binaries are those of the package pgserver; its own start-up is not used, because as root it makes an account and opens
every folder above its files to everyone.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

USER = "finance"
DATABASE = "finance"
# A socket's path has room for 107 bytes.
LONGEST_DIRECTORY = 107 - len("/.s.PGSQL.5432")


class Server:
    def __init__(self, directory):
        self.directory = Path(directory).resolve()
        self.data = self.directory / "data"
        self.password_file = self.directory / "password"
        self.owner = None
        self.launcher = []
        self.binaries = binaries()
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root. Another user may have no way through the folders above its data, and gets the
            # right to pass them. Its programs ask for themselves whether they may run each other, and must be within reach.
            if not shutil.which("setpriv"):
                raise SystemExit("setpriv is missing: install util-linux, or do this as another user than root")
            self.owner = pwd.getpwnam("nobody")
            self.launcher = [
                "setpriv", f"--reuid={self.owner.pw_uid}", f"--regid={self.owner.pw_gid}", "--clear-groups",
                "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
            ]
            self.binaries = within_reach(self.binaries)

    @property
    def settings(self):
        return {
            "POSTGRES_HOST": str(self.directory),
            "POSTGRES_PORT": "5432",
            "POSTGRES_USER": USER,
            "POSTGRES_PASSWORD": self.password_file.read_text(),
            "POSTGRES_DB": DATABASE,
        }

    def start(self):
        if len(os.fsencode(self.directory)) > LONGEST_DIRECTORY:
            raise SystemExit(f"{self.directory}: too long for a socket; choose a folder with at most {LONGEST_DIRECTORY} bytes")
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self.create()
        if self.pg_ctl("status", check=False).returncode != 0:
            self.pg_ctl(
                "start", "--wait", "--timeout=60", f"--log={self.directory}/log",
                # What is in it can be made again, so it need not survive a power cut.
                f"--options=-c listen_addresses= -c unix_socket_directories='{self.directory}' -c fsync=off",
            )
        if not self.psql(f"select 1 from pg_database where datname = '{DATABASE}'", database="postgres"):
            self.psql(f"create database {DATABASE}", database="postgres")

    def create(self):
        shutil.rmtree(self.data, ignore_errors=True)
        self.password_file.write_text(secrets.token_urlsafe())
        self.password_file.chmod(0o600)
        if self.owner:
            for path in (self.directory, self.password_file):
                os.chown(path, self.owner.pw_uid, self.owner.pw_gid)
        self.run(
            "initdb", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={self.password_file}",
            "--encoding=UTF8", "--locale=C", "--no-sync", f"--pgdata={self.data}",
        )

    def stop(self):
        if self.data.exists() and self.pg_ctl("status", check=False).returncode == 0:
            self.pg_ctl("stop", "--wait", "--mode=fast")

    def psql(self, sql, database=DATABASE):
        """The answer as lines with a tab between columns."""
        return self.run(*self.client(database), input=sql, env=self.client_environment()).stdout.strip()

    def session(self):
        return Session([self.binaries / "psql", *self.client(DATABASE)[1:]], self.client_environment())

    def client(self, database):
        return [
            "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t", "--set=ON_ERROR_STOP=1",
            f"--host={self.directory}", f"--username={USER}", f"--dbname={database}", "--file=-",
        ]

    def client_environment(self):
        return os.environ | {"PGPASSWORD": self.settings["POSTGRES_PASSWORD"]}

    def pg_ctl(self, *arguments, **options):
        return self.run("pg_ctl", "--silent", f"--pgdata={self.data}", *arguments, **options)

    def run(self, program, *arguments, check=True, **options):
        run = subprocess.run(
            [*self.launcher, self.binaries / program, *arguments], **options, cwd=self.directory, text=True,
            # The server inherits pg_ctl's output: a pipe would stay open until it stops.
            stdout=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
        )
        if check and run.returncode != 0:
            log = self.directory / "log"
            told = run.stderr or (log.read_text()[-2000:] if log.exists() else "")
            raise SystemExit(f"{program} ended with {run.returncode}:\n{told}")
        return run


class Session:
    """A connection that stays: `ask` is answered before it returns, with one line."""

    def __init__(self, command, env):
        self.process = subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, query):
        self.process.stdin.write(f"{query};\n\\echo\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        while self.process.stdout.readline().strip():
            pass
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def binaries():
    package = importlib.util.find_spec("pgserver")
    if package is None:
        raise SystemExit("the package pgserver is missing: install tests/requirements.txt")
    return Path(package.origin).parent / "pginstall" / "bin"


def within_reach(folder):
    """The folder, or a copy where every user may go, with the libraries that its programs look for beside the package."""
    if all(parent.stat().st_mode & 0o001 for parent in folder.parents):
        return folder
    package = folder.parent.parent
    copy = Path(tempfile.gettempdir()) / f"martd-postgres-{importlib.metadata.version(package.name)}"
    if not copy.exists():
        new = Path(tempfile.mkdtemp(dir=copy.parent))
        for each in package.parent.glob(f"{package.name}*"):
            if each.is_dir() and each.suffix in ("", ".libs"):
                shutil.copytree(each, new / each.name, symlinks=True)
        new.chmod(0o755)
        try:
            new.rename(copy)
        except OSError:
            shutil.rmtree(new)  # another one was quicker
    if copy.stat().st_uid != 0:
        raise SystemExit(f"{copy} is not root's: remove it")
    return copy / folder.relative_to(package.parent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("directory")
    arguments = parser.parse_args()
    server = Server(arguments.directory)
    getattr(server, arguments.action)()
    if arguments.action == "start":
        for name, value in server.settings.items():
            print(f"export {name}={shlex.quote(value)}")
