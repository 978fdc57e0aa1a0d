"""`martd mirror` and `martd publish --to`, against a real store."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import history
import pyarrow as pa
import pyarrow.parquet as pq
from issuers import Agent
from mirror import (
    INTERVAL,
    MARTS,
    PROGRAM,
    ROOT,
    Case,
    Mirror,
    Project,
    environment,
    once,
    served_build,
    wait_for,
    wait_for_build,
)
from martd import Martd
from store import Store

BUILDS = int(os.environ.get("BUILDS", "25"))
SEED = int(os.environ.get("SEED", "2026"))
# How long the endpoint is gone.
GONE_S = float(os.environ.get("GONE", "6"))

scratch = tempfile.TemporaryDirectory()
store: Store


def setUpModule() -> None:
    global store
    directory = Path(scratch.name) / "store"
    directory.mkdir()
    store = Store(directory)


def tearDownModule() -> None:
    store.close()
    scratch.cleanup()


class Gate:
    """Passes connections on to the store, while it is open; with a context of TLS what comes is decrypted."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._to = port
        self._context = context
        self._pairs: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self._listener, self.port = listener, listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Cuts every connection, and takes no other."""
        assert self._listener
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._pairs:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended
        self._pairs.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self._context is not None:
                try:
                    client = self._context.wrap_socket(client, server_side=True)
                except OSError:
                    continue  # it does not trust the certificate
            server = socket.create_connection(("127.0.0.1", self._to))
            self._pairs += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while part := source.recv(1 << 16):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # cut


class RealStore(Case):
    def project(self, name: str = "writer") -> Project:
        return Project(self.directory / name, store.endpoint, self.prefix)

    def mirror(self, **credentials: str) -> Mirror:
        mirror = Mirror(store.endpoint, self.prefix, self.place, credentials)
        self.addCleanup(mirror.kill)
        return mirror

    def martd(self) -> Martd:
        martd = Martd(self.place)
        self.addCleanup(martd.stop)
        return martd


class Histories(RealStore):
    def test_every_answer_is_of_one_whole_build(self) -> None:
        figures = history.run(store, self.directory, BUILDS, SEED)
        print(f"\nmirror: SEED={SEED}, listed every {INTERVAL}: {figures}")


class Failures(RealStore):
    """Whatever happens to the store, what is here is served, the reason is told, and it heals by itself."""

    def reason(self, martd: Martd, *words: str) -> str:
        """Waits until martd tells a reason with one of the words."""

        def look() -> str | None:
            error = martd.snapshot()["mirror"]["error"]
            reason: str = error["reason"] if error else ""
            return reason if any(word in reason for word in words) else None

        return wait_for(f"a reason with one of {words}", look)

    def heals(self, martd: Martd, number: int) -> None:
        wait_for_build(martd, number)
        wait_for("no error is told", lambda: martd.snapshot()["mirror"]["error"] is None)

    def test_wrong_credentials(self) -> None:
        project = self.project()
        project.build(1)
        credentials = self.directory / "credentials"

        def write(secret: str) -> None:
            text = f"[default]\naws_access_key_id = writer\naws_secret_access_key = {secret}\n"
            temporary = credentials.with_suffix(".new")
            temporary.write_text(text)
            temporary.rename(credentials)

        write("writer-secret")
        mirror = self.mirror(AWS_SHARED_CREDENTIALS_FILE=str(credentials))
        martd = self.martd()
        wait_for_build(martd, 1)
        write("wrong")
        reason = self.reason(martd, "SignatureDoesNotMatch", "AccessDenied")
        self.assertNotIn("writer-secret", json.dumps(mirror.status()) + json.dumps(mirror.log))
        self.assertIn("the store answers", reason)
        project.build(2)
        self.assertEqual(served_build(martd), 1)
        write("writer-secret")
        self.heals(martd, 2)

    def test_expired_credentials(self) -> None:
        project = self.project()
        project.build(1)
        store.allow("first", "secret-1")
        issuer = Agent("first", "secret-1")
        self.addCleanup(issuer.stop)
        token = self.directory / "token"
        token.write_text(issuer.token)
        self.mirror(
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{issuer.url}/credentials",
            AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token),
        )
        martd = self.martd()
        wait_for_build(martd, 1)
        asked = issuer.asked
        wait_for("credentials are asked for again", lambda: issuer.asked > asked)
        store.revoke("first")
        self.reason(martd, "SignatureDoesNotMatch")
        project.build(2)
        self.assertEqual(served_build(martd), 1)
        store.allow("second", "secret-2")
        issuer.now = ("second", "secret-2")
        self.heals(martd, 2)

    def test_the_endpoint_is_gone_for_a_while(self) -> None:
        project = self.project()
        project.build(1)
        gate = Gate(store.port)
        self.addCleanup(gate.close)
        mirror = Mirror(f"http://127.0.0.1:{gate.port}", self.prefix, self.place)
        self.addCleanup(mirror.kill)
        martd = self.martd()
        wait_for_build(martd, 1)
        gate.close()
        gone = time.monotonic()
        self.reason(martd, "refused", "reset", "not reached", "closed")
        project.build(2)
        while time.monotonic() < gone + GONE_S:
            self.assertEqual(served_build(martd), 1)
            time.sleep(0.2)
        self.assertGreaterEqual(martd.snapshot()["mirror"]["seconds_behind"], int(GONE_S) - 2)
        gate.open()
        back = time.monotonic()
        self.heals(martd, 2)
        print(f"\nmirror: gone for {GONE_S} s, and {time.monotonic() - back:.1f} s later all is well")

    def test_the_bucket_is_emptied(self) -> None:
        project = self.project()
        project.build(1)
        self.mirror()
        martd = self.martd()
        wait_for_build(martd, 1)
        before = sorted(path.name for path in self.marts.rglob("*.parquet"))
        store.empty(self.prefix)
        self.reason(martd, "lists nothing")
        self.assertEqual(sorted(path.name for path in self.marts.rglob("*.parquet")), before)
        self.assertEqual(served_build(martd), 1)
        # All is sent again, for the bucket has none of it.
        sent = project.publish("--recorded")["uploaded"]
        self.assertEqual((sent["files"], sent["records"]), (len(MARTS), 1))
        project.build(2)
        self.heals(martd, 2)

    def test_the_bucket_is_being_emptied(self) -> None:
        project = self.project()
        project.build(1)
        mirror = self.mirror()
        martd = self.martd()
        wait_for_build(martd, 1)
        store.delete(f"{self.prefix}/m0.parquet")
        self.reason(martd, "gone from the bucket and kept, m0.parquet first")
        store.delete(f"{self.prefix}/_builds/build-00001.json")
        wait_for("both are kept", lambda: "2 objects are gone" in str(mirror.status()["error"]))
        self.assertEqual(served_build(martd), 1)

    def test_a_mistyped_prefix_is_told(self) -> None:
        self.project().build(1)
        wrong = self.prefix.replace("mart", "mrat")
        store.put(f"{wrong}/notes.txt", b"nothing that martd reads")
        for prefix in (wrong, f"{self.prefix}/none"):
            code, said = once(store.endpoint, prefix, self.directory / prefix)
            self.assertEqual(code, 1)
            self.assertIn(f"nothing is listed below s3://marts/{prefix} ", said)
            self.assertIn("is the prefix right?", said)

    def test_a_prefix_that_is_filled_later_heals(self) -> None:
        mirror = self.mirror()
        wait_for("it is told", lambda: "nothing is listed" in str(mirror.status().get("error")))
        self.assertIsNone(mirror.status()["succeeded_at"])
        self.project().build(1)
        mirror.wait_until_equal()
        self.assertIsNone(mirror.status()["error"])

    def test_no_such_bucket(self) -> None:
        code, said = once(store.endpoint, self.prefix, self.place, bucket="no-such-bucket")
        self.assertEqual(code, 1)
        self.assertIn("the store answers NoSuchBucket", said)


class Reaches(RealStore):
    def test_what_is_missing_is_named(self) -> None:
        done = subprocess.run([PROGRAM, "mirror"], env=environment(), capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("<URL> (MARTD_MIRROR_URL)", done.stderr)

    def test_a_store_behind_tls(self) -> None:
        authority, context = self.certificate()
        gate = Gate(store.port, context)
        self.addCleanup(gate.close)
        self.project().build(1)
        endpoint = f"https://127.0.0.1:{gate.port}"
        code, said = once(endpoint, self.prefix, self.place)
        self.assertEqual(code, 1)
        self.assertRegex(said, "(?i)certificate")
        code, said = once(endpoint, self.prefix, self.place, "--ca-file", str(authority))
        self.assertEqual(code, 0, said)

    def test_more_objects_than_a_page_lists(self) -> None:
        writer = self.project()
        writer.write(1, ["part"])
        part = (writer.marts / "part.parquet").read_bytes()
        for mart in ("one", "two"):
            for number in range(600):
                store.put(f"{self.prefix}/{mart}/n={number}/a.parquet", part)
            store.put(f"{self.prefix}/{mart}/_SUCCESS", b"")
        # Nor are more of them open at once than a process may have.
        mirror = Mirror(store.endpoint, self.prefix, self.place, under=["prlimit", "--nofile=256", "--"])
        self.addCleanup(mirror.kill)
        mirror.wait_until_equal()
        self.assertEqual(len(list(self.marts.rglob("a.parquet"))), 1200)
        self.assertNotIn("open files", json.dumps(mirror.log))

    def test_an_odd_key_stops_no_other(self) -> None:
        project = self.project()
        project.build(1)
        part = (project.marts / "m0.parquet").read_bytes()
        odd = ["new%0Aline", "control%01", "not-utf-8%FF"]
        fine = {"percent%252F": "percent%2F", "%20sign%2B%3F%23%26": " sign+?#&", "%C3%A9": "é"}
        for name in (*odd, *fine):
            store.put_raw(f"{self.prefix}/{name}.parquet", part)
        store.put_raw(f"{self.prefix}/folder.parquet/", b"")
        mirror = self.mirror()
        martd = self.martd()
        wait_for_build(martd, 1)
        wait_for("it is told", lambda: "3 objects are left out" in str(mirror.status()["error"]))
        self.assertIn("control", mirror.status()["error"]["reason"])
        for name in fine.values():
            self.assertEqual((self.marts / f"{name}.parquet").read_bytes(), part)
        # What comes and goes beside them is seen as ever.
        project.build(2)
        wait_for_build(martd, 2)
        store.delete(f"{self.prefix}/é.parquet")
        wait_for("it is removed", lambda: not (self.marts / "é.parquet").exists())
        for name in odd:
            store.delete_raw(f"{self.prefix}/{name}.parquet")
        wait_for("all is well", lambda: mirror.status()["error"] is None)

    def test_a_new_replica_shows_no_half_build(self) -> None:
        project = self.project()
        project.build(1)
        project.write(2)
        for name in MARTS[:3]:  # the second build is being sent, and the bucket has the first no more
            store.put(f"{self.prefix}/{name}.parquet", (project.marts / f"{name}.parquet").read_bytes())
        martd = self.martd()
        mirror = self.mirror()
        wait_for("it is told", lambda: "does not have; the next whole build" in str(mirror.status().get("error")))
        snapshot = martd.snapshot()
        self.assertEqual((snapshot["id"], snapshot["marts"]), (None, []))
        self.assertIn("has not brought a whole build", snapshot["building"]["reason"])
        self.assertEqual(len(list(self.marts.glob("*.parquet"))), len(MARTS))
        project.publish("--build", "build-00002")
        wait_for_build(martd, 2)

    def test_a_new_replica_waits_for_the_first_build(self) -> None:
        project = self.project()
        build = project.build(1)
        store.delete(f"{self.prefix}/_builds/{build}.json")  # as if it were on its way
        martd = self.martd()
        mirror = self.mirror()
        wait_for("the files are here", lambda: mirror.status().get("succeeded_at"))
        mirror.kill()
        self.mirror()
        reason = wait_for("it is told", lambda: (martd.snapshot()["building"] or {}).get("reason"))
        self.assertIn("has not brought a whole build", reason)
        self.assertEqual((martd.snapshot()["marts"], len(list(self.marts.glob("*.parquet")))), ([], len(MARTS)))
        project.publish("--recorded")
        wait_for_build(martd, 1)

    def test_a_killed_mirror_goes_on(self) -> None:
        project = self.project()
        project.build(1)
        martd = self.martd()
        with self.mirror():
            wait_for_build(martd, 1)
        chance = random.Random(SEED)
        for number in range(2, 10):
            project.build(number)
            with self.mirror() as mirror:
                time.sleep(chance.uniform(0, 0.4))  # when is the point
                mirror.kill()
            self.assertIsNotNone(served_build(martd))
        self.mirror()
        wait_for_build(martd, 9)
        own = self.marts / ".mirror"
        wait_for("nothing is left", lambda: sorted(path.name for path in own.iterdir()) == ["lock", "state.json"])


class Files(RealStore):
    def test_a_restart_downloads_nothing_again(self) -> None:
        self.project().build(1)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        before = {path: path.stat().st_ino for path in self.marts.rglob("*") if path.suffix == ".parquet"}
        code, said = once(store.endpoint, self.prefix, self.place)
        self.assertEqual((code, [line for line in said.splitlines() if '"mirrored"' in line]), (0, []))
        self.assertEqual(before, {path: path.stat().st_ino for path in before})
        # Also when what it knew is lost, for the files are equal.
        (self.marts / ".mirror/state.json").unlink()
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        self.assertEqual(before, {path: path.stat().st_ino for path in before})

    def test_a_file_is_as_old_as_its_object(self) -> None:
        self.project().build(1)
        sent = time.time()
        time.sleep(1.5)  # more than a second, by which the store tells time
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        self.assertLess((self.marts / "m0.parquet").stat().st_mtime, sent + 1)

    def test_a_file_that_was_damaged_is_told(self) -> None:
        self.project().build(1)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        (self.marts / "m3.parquet").write_bytes(b"PAR1")
        code, said = once(store.endpoint, self.prefix, self.place)
        self.assertEqual(code, 1)
        self.assertIn("m3.parquet was written by another program; remove it", said)
        (self.marts / "m3.parquet").unlink()
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        self.assertGreater((self.marts / "m3.parquet").stat().st_size, 100)

    def test_files_of_others_are_left_alone(self) -> None:
        self.project().build(1)
        self.marts.mkdir(parents=True)
        (self.marts / "m1.parquet").write_bytes(b"mine")
        (self.marts / "other.parquet").write_bytes(b"mine, too")
        code, said = once(store.endpoint, self.prefix, self.place)
        self.assertEqual(code, 1)
        self.assertIn("m1.parquet was written by another program", said)
        self.assertEqual((self.marts / "m1.parquet").read_bytes(), b"mine")
        # What the record names is not all here.
        self.assertFalse((self.marts / "_builds").exists())
        self.assertEqual(once(store.endpoint, self.prefix, self.place, "--overwrite")[0], 0)
        self.assertNotEqual((self.marts / "m1.parquet").read_bytes(), b"mine")
        self.assertEqual((self.marts / "other.parquet").read_bytes(), b"mine, too")

    def test_two_mirrors_do_not_share_a_directory(self) -> None:
        self.project().build(1)
        self.mirror().wait_until_equal()
        code, said = once(store.endpoint, self.prefix, self.place)
        self.assertEqual(code, 1)
        self.assertIn("another mirror writes into", said)

    def test_a_directory_mirrors_one_prefix(self) -> None:
        self.project().build(1)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        code, said = once(store.endpoint, "another", self.place)
        self.assertEqual(code, 2)
        self.assertIn(f"mirrors s3://marts/{self.prefix}, and not s3://marts/another", said)

    def test_a_removed_directory_is_filled_again(self) -> None:
        self.project().build(1)
        mirror = self.mirror()
        mirror.wait_until_equal()
        martd = self.martd()
        wait_for_build(martd, 1)
        started = mirror.status()["started_at"]
        whole = lambda: len(list(self.marts.glob("*.parquet"))) == len(MARTS)  # noqa: E731
        shutil.rmtree(self.marts)
        wait_for("the marts are back", whole)
        mirror.wait_until_equal()
        self.assertGreater(mirror.status()["started_at"], started, "it is a new directory")
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 1, "the lock is taken again")
        # Its parent is not the mirror's to make.
        shutil.rmtree(self.place)
        wait_for("the reason is told", lambda: "mirror is not there" in json.dumps(mirror.log))
        self.assertFalse(self.place.exists())
        self.place.mkdir()
        wait_for("the marts are back", whole)
        mirror.wait_until_equal()
        self.assertIsNone(mirror.status()["error"])
        wait_for_build(martd, 1)
        self.assertEqual(mirror.stop(), 0)

    def test_it_may_write_in_its_directory_alone(self) -> None:
        self.project().build(1)
        mirror = self.mirror()
        mirror.wait_until_equal()
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir()
        self.marts.rename(self.place / "before")
        self.marts.symlink_to(elsewhere)
        wait_for("it is refused", lambda: "ermission denied" in json.dumps(mirror.log) or list(elsewhere.iterdir()))
        if "has no Landlock" in json.dumps(mirror.log):
            self.skipTest("this kernel has no Landlock")
        self.assertEqual(list(elsewhere.iterdir()), [])
        self.marts.unlink()
        wait_for("the marts are back", lambda: len(list(self.marts.glob("*.parquet"))) == len(MARTS))
        mirror.wait_until_equal()
        # What a link leads to when it starts is the directory that was meant.
        self.assertEqual(mirror.stop(), 0)
        shutil.rmtree(self.marts)
        self.marts.symlink_to(elsewhere)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        self.assertEqual(len(list(elsewhere.glob("*.parquet"))), len(MARTS))

    def test_a_damaged_state_begins_anew(self) -> None:
        self.project().build(1)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        before = {path: path.stat().st_ino for path in self.marts.rglob("*.parquet")}
        status = json.loads((self.marts / "_mirror.json").read_text())
        state = self.marts / ".mirror/state.json"
        state.write_bytes(state.read_bytes()[:100])
        code, said = once(store.endpoint, self.prefix, self.place)
        self.assertEqual(code, 0, said)
        self.assertIn("begins anew", said)
        self.assertEqual(before, {path: path.stat().st_ino for path in before})
        after = json.loads((self.marts / "_mirror.json").read_text())
        self.assertGreater(after["started_at"], status["started_at"])

    def test_a_lost_state_is_no_success(self) -> None:
        self.project().build(1)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        (self.marts / ".mirror/state.json").unlink()
        self.assertEqual(once("http://127.0.0.1:1", self.prefix, self.place)[0], 1)
        self.assertIsNone(json.loads((self.marts / "_mirror.json").read_text())["succeeded_at"])

    def test_a_link_does_not_lead_elsewhere(self) -> None:
        writer = self.project()
        writer.write(1, ["part"])
        part = (writer.marts / "part.parquet").read_bytes()
        for name in ("day=1/a.parquet", "_SUCCESS"):
            store.put(f"{self.prefix}/sales/{name}", b"" if name == "_SUCCESS" else part)
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir()
        self.marts.mkdir(parents=True)
        (self.marts / "sales").symlink_to(elsewhere)
        for flags in ([], ["--overwrite"]):
            code, said = once(store.endpoint, self.prefix, self.place, *flags)
            self.assertEqual(code, 1)
            self.assertIn("sales is a link or a file where the mirror needs a directory; remove it", said)
            self.assertEqual(list(elsewhere.iterdir()), [])
        (self.marts / "sales").unlink()
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)

    def test_a_stop_is_clean_and_quick(self) -> None:
        self.project().build(1)
        mirror = self.mirror()
        mirror.wait_until_equal()
        self.assertEqual(mirror.stop(), 0)
        own = self.marts / ".mirror"
        self.assertEqual(sorted(path.name for path in own.iterdir()), ["lock", "state.json"])

    def test_the_units_restrictions_suit_it(self) -> None:
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not installed (Debian's package systemd)")
        self.project().build(1)
        unit = ROOT / "systemd/martd-mirror.service"
        under = [sys.executable, str(ROOT / "tests/systemd/confine.py"), str(unit)]
        mirror = Mirror(store.endpoint, self.prefix, self.place, under=under)
        self.addCleanup(mirror.kill)
        mirror.wait_until_equal()
        # What it writes its group may read.
        self.assertEqual((self.marts / "m0.parquet").stat().st_mode & 0o777, 0o640)
        self.assertEqual((self.marts / "_mirror.json").stat().st_mode & 0o777, 0o640)
        martd = self.martd()
        wait_for_build(martd, 1)
        store.delete(f"{self.prefix}/m0.parquet")
        wait_for("it is told", lambda: "gone from the bucket" in str(mirror.status()["error"]))
        self.assertEqual(mirror.stop(), 0)
        self.assertNotIn("not permitted", json.dumps(mirror.log))
        said = once("http://127.0.0.1:1", self.prefix, self.place)[1]
        self.assertEqual("no Landlock" in json.dumps(mirror.log), "no Landlock" in said)

    def test_a_silent_mirror_is_told(self) -> None:
        self.project().build(1)
        mirror = self.mirror()
        mirror.wait_until_equal()
        mirror.kill()
        martd = self.martd()
        wait_for_build(martd, 1)
        wait_for("it is told", lambda: martd.snapshot()["mirror"]["silent"])
        page = martd.request("GET", "/")[1].decode()
        self.assertIn("The mirror is silent", page)
        metrics = martd.request("GET", "/metrics")[1].decode()
        self.assertIn("martd_mirror_failing 1", metrics)

    def test_a_restart_is_as_far_behind_as_before(self) -> None:
        self.project().build(1)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        status = self.marts / "_mirror.json"
        before = json.loads(status.read_text())
        self.assertEqual(once("http://127.0.0.1:1", self.prefix, self.place)[0], 1)
        after = json.loads(status.read_text())
        self.assertIn("not reached", after["error"]["reason"])
        for word in ("started_at", "succeeded_at"):
            self.assertEqual(after[word], before[word], word)

    def test_a_record_waits_for_its_files(self) -> None:
        project = self.project()
        project.build(1)
        mirror = self.mirror()
        martd = self.martd()
        wait_for_build(martd, 1)
        # A record whose file never came: another writer has overwritten it.
        build = project.write(2)
        project.publish("--build", build)
        wait_for_build(martd, 2)
        project.write(3)
        project.publish("--build", "build-00003")
        wait_for_build(martd, 3)
        record = store.get(f"{self.prefix}/_builds/build-00003.json").replace(b"build-00003", b"build-00004")
        later = record.replace(b'"finished_at":"20', b'"finished_at":"21')
        sha256 = json.loads(record)["marts"][5]["files"][0]["sha256"].encode()
        store.put(f"{self.prefix}/_builds/build-00004.json", later.replace(sha256, b"0" * 64))
        wait_for("the reason is told", lambda: "build-00004 names bytes of m5" in str(mirror.status()["error"]))
        self.assertFalse((self.marts / "_builds/build-00004.json").exists())
        self.assertEqual(served_build(martd), 3)
        self.assertIsNone(martd.snapshot()["held"])

    def test_a_torn_object_is_not_written(self) -> None:
        project = self.project()
        project.build(1)
        mirror = self.mirror()
        mirror.wait_until_equal()
        before = (self.marts / "m0.parquet").read_bytes()
        claimed = hashlib.sha256(before).hexdigest()
        store.put_claiming(f"{self.prefix}/m0.parquet", before[:-10], claimed)
        told = lambda: "m0.parquet: its bytes are not those" in str(mirror.status()["error"])  # noqa: E731
        wait_for("the reason is told", told)
        self.assertEqual((self.marts / "m0.parquet").read_bytes(), before)

    def test_marts_of_parts_are_complete_or_not_there(self) -> None:
        writer = self.project()
        writer.write(1, ["part"])
        part = (writer.marts / "part.parquet").read_bytes()
        for name in ("day=1/a.parquet", "day=2/b.parquet", "_SUCCESS"):
            store.put(f"{self.prefix}/sales/{name}", b"" if name == "_SUCCESS" else part)
        self.mirror().wait_until_equal()
        martd = self.martd()
        martd.wait_for_marts(1)
        [mart] = martd.snapshot()["marts"]
        self.assertEqual((mart["name"], mart["files"]), ("sales", 2))
        # One part goes and another comes: a rewrite, which is seen when its mark is there again.
        store.delete(f"{self.prefix}/sales/_SUCCESS")
        wait_for("it is complete no more", lambda: not (self.marts / "sales/_SUCCESS").exists())
        store.delete(f"{self.prefix}/sales/day=1/a.parquet")
        store.put(f"{self.prefix}/sales/day=3/c.parquet", part)
        store.put(f"{self.prefix}/sales/day=4/d.parquet", part)
        wait_for("the parts are here", lambda: (self.marts / "sales/day=4/d.parquet").exists())
        self.assertEqual(martd.snapshot()["marts"][0]["files"], 2)
        store.put(f"{self.prefix}/sales/_SUCCESS", b"")
        wait_for("the rewrite is served", lambda: martd.snapshot()["marts"][0]["files"] == 3)
        self.assertFalse((self.marts / "sales/day=1").exists())

    def test_what_has_left_is_removed(self) -> None:
        writer = self.project()
        writer.write(1, ["a", "b"])
        for name in ("a", "b"):
            store.put(f"{self.prefix}/{name}.parquet", (writer.marts / f"{name}.parquet").read_bytes())
        self.mirror()
        martd = self.martd()
        martd.wait_for_marts(2)
        store.delete(f"{self.prefix}/b.parquet")
        martd.wait_for_marts(1)
        self.assertFalse((self.marts / "b.parquet").exists())


class Uploads(RealStore):
    def test_only_what_has_changed_is_sent(self) -> None:
        project = self.project()
        project.write(1)
        sent = project.publish("--build", "build-00001")["uploaded"]
        self.assertEqual((sent["files"], sent["records"]), (len(MARTS), 1))
        project.write(2, ["m0", "m1"])
        sent = project.publish("--build", "build-00002", "m0", "m1")["uploaded"]
        self.assertEqual((sent["files"], sent["records"]), (2, 1))
        sent = project.publish("--recorded")["uploaded"]
        self.assertEqual((sent["files"], sent["records"], sent["bytes"]), (0, 0, 0))

    def test_what_was_overwritten_is_sent_again(self) -> None:
        project = self.project()
        project.build(1)
        record, file = f"{self.prefix}/_builds/build-00001.json", f"{self.prefix}/m2.parquet"
        good = {key: store.get(key) for key in (record, file)}
        for key, content in good.items():
            store.put(key, bytes(len(content)))
        sent = project.publish("--recorded")["uploaded"]
        self.assertEqual((sent["files"], sent["records"]), (1, 1))
        self.assertEqual({key: store.get(key) for key in good}, good)
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        store.put_claiming(record, good[record], "0" * 64)
        project.publish("--recorded")
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)

    def test_a_large_file_is_sent_in_parts(self) -> None:
        project = self.project()
        project.write(1, ["m0"])
        table = pa.table({"noise": [os.urandom(1 << 16) for _ in range(640)]})
        pq.write_table(table, project.marts / "large.parquet", compression=None)
        self.assertGreater((project.marts / "large.parquet").stat().st_size, 40 << 20)
        project.publish("large")
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        sent = (project.marts / "large.parquet").read_bytes()
        self.assertEqual((self.marts / "large.parquet").read_bytes(), sent)

    def test_wrong_usage_records_nothing(self) -> None:
        project = self.project()
        project.write(1)
        for wrong in ("https://bucket/marts", "s3://"):
            command = [*project.command("--build", "build-00001")]
            command[command.index("--to") + 1] = wrong
            done = subprocess.run(command, env=environment(), capture_output=True, text=True)
            self.assertEqual((done.returncode, "write it as s3://BUCKET/PREFIX" in done.stderr), (2, True))
        self.assertFalse((project.marts / "_builds").exists())

    def test_an_error_names_the_object(self) -> None:
        project = self.project()
        build = project.write(1)
        project.publish("--build", build)
        project.write(2)
        denied = environment({"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "wrong"})
        done = subprocess.run(
            project.command("--build", "build-00002"), env=denied, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 5)
        self.assertIn("the store answers SignatureDoesNotMatch", done.stderr)
        self.assertIn("build build-00002 is recorded here, and is not in the bucket", done.stderr)
        self.assertIn("--recorded", done.stderr)
        project.publish("--recorded")
        self.assertEqual(once(store.endpoint, self.prefix, self.place)[0], 0)
        self.assertTrue((self.marts / "_builds/build-00002.json").exists())


if __name__ == "__main__":
    unittest.main()
