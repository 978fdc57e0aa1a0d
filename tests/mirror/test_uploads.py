"""`martd publish --to` and `martd mirror`, against a store that does what it should not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import unittest
from datetime import UTC, datetime, timedelta
from typing import Any

from fake import Fake
from mirror import MARTS, Case, Mirror, Project, once, wait_for

# The exit code when a record is here, and not in the bucket.
NOT_SENT = 5


class BrokenStore(Case):
    def setUp(self) -> None:
        super().setUp()
        self.store = Fake()
        self.addCleanup(self.store.close)

    def project(self, name: str = "writer") -> Project:
        return Project(self.directory / name, self.store.endpoint, self.prefix)

    def key(self, build: str) -> str:
        return f"{self.prefix}/_builds/{build}.json"

    def record(self, build: str) -> Any:
        return json.loads(self.store.get(self.key(build)))

    def once(self) -> tuple[int, str]:
        return once(self.store.endpoint, self.prefix, self.place)

    def other(self, build: str, ends_in: timedelta, **more: Any) -> None:
        """Puts a record of another machine into the bucket, of the newest build's marts."""
        at = (datetime.now(UTC) + ends_in).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = {"version": 2, "build": {"id": build, "started_at": at, "finished_at": at, "status": "success"}, **more}
        self.store.put(self.key(build), json.dumps(record).encode())

    def marts_of(self, content: bytes, *names: str) -> list[dict[str, Any]]:
        sha256 = hashlib.sha256(content).hexdigest()
        file = {"bytes": len(content), "sha256": sha256}
        return [{"name": name, "files": [{"path": f"{name}.parquet", **file}]} for name in names]

    def fails(self, done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


class Damaged(BrokenStore):
    def test_a_damaged_record_is_fetched_again(self) -> None:
        project = self.project()
        project.build(1)
        key = self.key("build-00001")
        claim = hashlib.sha256(self.store.get(key)).hexdigest()
        self.assertEqual(self.store.objects[key].claim, claim)
        # One letter is another; it still parses.
        self.store.damage = lambda _, content: content.replace(b"martd publish", b"martd pablish")
        mirror = Mirror(self.store.endpoint, self.prefix, self.place)
        self.addCleanup(mirror.kill)
        told = lambda: "_builds/build-00001.json: its bytes are not those" in str(mirror.status().get("error"))  # noqa: E731
        wait_for("the reason is told", told)
        self.assertFalse((self.marts / "_builds").exists())
        self.store.damage = lambda _, content: content
        wait_for("all is well", lambda: mirror.status()["error"] is None)
        installed = (self.marts / "_builds/build-00001.json").read_bytes()
        self.assertEqual(installed, self.store.get(key))

    def test_a_damaged_record_is_written_anew(self) -> None:
        project = self.project()
        project.build(1)
        key = self.key("build-00001")
        good = self.store.get(key)
        claim = self.store.objects[key].claim
        for what, bad, claimed in (
            ("cut", good[:-20], None),
            ("of the same length", b"{" * len(good), None),
            ("of another name", good.replace(b"build-00001", b"build-00002"), None),
        ):
            self.store.put(key, bad, claimed)
            done = project.attempt("--recorded")
            self.assertEqual(done.returncode, 0, f"{what}: {done.stderr}")
            self.assertIn("_builds/build-00001.json", done.stderr, what)
            self.assertIn("written anew", done.stderr, what)
            self.assertEqual(self.store.get(key), good, what)
            self.assertEqual(json.loads(done.stdout)["uploaded"]["records"], 1, what)
        # Bytes that went bad under the right claim, too.
        self.store.put(key, b"{" * len(good), claim)
        self.assertEqual(project.attempt("--recorded").returncode, 0)
        self.assertEqual(self.store.get(key), good)
        # Also by a publish that sends another record.
        self.store.put(key, good[:-20])
        project.build(2)
        self.assertEqual(self.store.get(key), good)


class SameBuild(BrokenStore):
    def test_another_record_of_a_build_is_an_error(self) -> None:
        project = self.project()
        project.build(1)
        key = self.key("build-00001")
        good = self.store.get(key)
        for other in (good.replace(b"martd publish", b"martd pablish"), good.replace(b"martd publish", b"another")):
            self.store.put(key, other)
            self.store.sent()
            done = project.attempt("--recorded")
            self.fails(done, NOT_SENT, "build-00001", "another record", "under another id")
            self.assertEqual(self.store.get(key), other)
            self.assertEqual(self.store.sent(), [])
        # What is written otherwise and says the same is the same.
        self.store.put(key, json.dumps(json.loads(good), indent=1).encode())
        project.publish("--recorded")

    def test_a_build_that_another_machine_sent(self) -> None:
        first, second = self.project("one"), self.project("two")
        first.build(1)
        good = self.store.get(self.key("build-00001"))
        # The same files: a job that is run again somewhere else.
        second.write(1)
        said = second.publish("--build", "build-00001")
        self.assertEqual((said["already"], said["uploaded"]["records"]), (True, 0))
        third = self.project("three")
        third.write(2)
        for mart in third.marts.iterdir():
            if mart.name != "m0.parquet":
                mart.unlink()
        self.store.sent()
        done = third.attempt("--build", "build-00002", "m0")
        self.assertEqual(done.returncode, 0, done.stderr)
        fourth = self.project("four")
        fourth.write(2, ["m1"])
        self.store.sent()
        done = fourth.attempt("--build", "build-00002", "m1")
        self.fails(done, 1, "nothing is recorded", "build-00002", "build again")
        self.assertFalse((fourth.marts / "_builds").exists())
        self.assertEqual(self.store.sent(), [])
        self.assertEqual(self.store.get(self.key("build-00001")), good)

    def test_a_record_that_came_first_stands(self) -> None:
        """Two machines send one build at once: the second is told, whatever the listing has said."""
        project = self.project()
        build = project.write(1)
        key = self.key(build)

        def race(method: str, asked: str) -> None:
            if method == "PUT" and asked == key and key not in self.store.objects:
                self.other(build, timedelta(), marts=self.marts_of(b"another", "m0"))

        self.store.before = race
        done = project.attempt("--build", build)
        self.fails(done, NOT_SENT, build, "another record")


class Order(BrokenStore):
    def test_a_record_of_the_far_future_is_told(self) -> None:
        project = self.project()
        project.build(1)
        self.other("ahead", timedelta(days=365), marts=self.marts_of(b"x", *MARTS))
        year = str((datetime.now(UTC) + timedelta(days=365)).year)
        self.store.sent()
        build = project.write(2)
        done = project.attempt("--build", build)
        self.fails(done, 1, "nothing is recorded", "build ahead", year, "_builds/ahead.json")
        self.assertFalse((project.marts / f"_builds/{build}.json").exists())
        self.assertEqual(self.store.sent(), [])
        # What was recorded before that is known is not sent either; nor what is of other marts alone.
        recorded = project.command("--build", build)
        subprocess.run(recorded[: recorded.index("--to")], check=True, capture_output=True)
        for _ in range(2):
            done = project.attempt("--recorded")
            self.fails(done, NOT_SENT, build, "build ahead", year)
            self.assertEqual(self.store.sent(), [])
            self.other("ahead", timedelta(days=365), marts=self.marts_of(b"x", "m0"))
        # Nor when that record is here, too.
        (project.marts / "_builds/ahead.json").write_bytes(self.store.get(self.key("ahead")))
        self.fails(project.attempt("--recorded"), NOT_SENT, build, "build ahead", year)
        (project.marts / "_builds/ahead.json").unlink()
        # Once it is gone, or a record here stands for it, all is well.
        self.other("stands", timedelta(), replaces=["ahead"])
        (project.marts / "_builds/stands.json").write_bytes(self.store.get(self.key("stands")))
        project.publish("--recorded")

    def test_a_clock_that_is_a_little_ahead_is_followed(self) -> None:
        project = self.project()
        project.build(1)
        self.other("ahead", timedelta(minutes=5), marts=self.marts_of(b"x", *MARTS))
        ahead = self.record("ahead")["build"]["finished_at"]
        done = project.attempt("--build", project.write(2))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("ahead", done.stderr)
        self.assertGreater(self.record("build-00002")["build"]["finished_at"], ahead)
        self.assertEqual(json.loads(done.stdout)["uploaded"]["files"], len(MARTS))

    def test_a_build_that_another_has_overtaken_is_told(self) -> None:
        project = self.project()
        project.build(1)
        build = project.write(2)
        recorded = project.command("--build", build)
        subprocess.run(recorded[: recorded.index("--to")], check=True, capture_output=True)
        self.other("later", timedelta(), marts=self.marts_of(b"x", *MARTS))
        self.store.put(f"{self.prefix}/m0.parquet", b"x")
        self.store.sent()
        done = project.attempt("--recorded")
        self.fails(done, NOT_SENT, build, "build later", self.record("later")["build"]["finished_at"][:16])
        self.assertEqual(self.store.sent(), [])
        # One that comes after it is sent, and with it the one that was overtaken.
        project.build(3)
        self.assertIn(self.key(build), self.store.objects)

    def test_a_newer_build_is_not_overwritten(self) -> None:
        project = self.project()
        build = project.write(1)
        recorded = project.command("--build", build)
        subprocess.run(recorded[: recorded.index("--to")], check=True, capture_output=True)
        self.other("later", timedelta(), marts=self.marts_of(b"x", "m0"))
        self.store.put(f"{self.prefix}/m0.parquet", b"x", hashlib.sha256(b"x").hexdigest())
        for flags in (["--recorded"], ["--recorded"]):
            project.publish(*flags)
            self.assertEqual(self.store.get(f"{self.prefix}/m0.parquet"), b"x")
        self.assertIn(f"{self.prefix}/m1.parquet", self.store.objects)

    def test_records_of_others_stand_in_nobodys_way(self) -> None:
        project = self.project()
        project.build(1)
        build = project.write(2)
        recorded = project.command("--build", build)
        subprocess.run(recorded[: recorded.index("--to")], check=True, capture_output=True)
        other = {"id": "other", "started_at": "2026-01-01T00:00:00Z", "status": "success", "project": "other"}
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = {"version": 2, "build": {**other, "finished_at": at}, "marts": self.marts_of(b"x", "z")}
        self.store.put(self.key("other"), json.dumps(record).encode())
        self.store.put(self.key("damaged"), b"{")
        done = project.attempt("--recorded")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("_builds/damaged.json", done.stderr)
        # A run that says nothing new is in force, too.
        project.publish("--fail", "check=no")
        self.other("after", timedelta(), marts=self.marts_of(b"x", "y"))
        project.publish("--clear", "check")


class Recorded(BrokenStore):
    def test_what_a_stranger_overwrote_is_sent_again(self) -> None:
        project = self.project()
        project.build(1)
        project.write(2, ["m0"])
        project.publish("--build", "build-00002", "m0")
        key = f"{self.prefix}/m5.parquet"
        good = self.store.get(key)
        for number, bad in ((3, b"a stranger's"), (4, good[:-1] + b"x")):
            self.store.put(key, bad)
            # A publish of what is new does not look at the others.
            self.store.asked.clear()
            project.publish("--build", project.write(number, ["m0"]), "m0")
            self.assertNotIn(("HEAD", key), self.store.asked)
            sent = project.publish("--recorded")["uploaded"]
            self.assertEqual((sent["files"], sent["records"], sent["bytes"]), (1, 0, len(good)))
            self.assertEqual(self.store.get(key), good)
            sent = project.publish("--recorded")["uploaded"]
            self.assertEqual((sent["files"], sent["records"], sent["bytes"]), (0, 0, 0))

    def test_a_failed_upload_says_what_is_done(self) -> None:
        project = self.project()
        build = project.write(1)
        self.store.before = lambda method, key: 403 if method == "PUT" and key.endswith("m3.parquet") else None
        done = project.attempt("--build", build)
        self.fails(done, NOT_SENT, "m3.parquet", f"build {build} is recorded here", "not in the bucket", "--recorded")
        self.assertEqual(json.loads(done.stdout)["build"], build)
        self.assertTrue((project.marts / f"_builds/{build}.json").exists())
        self.assertNotIn(self.key(build), self.store.objects)
        done = project.attempt("--recorded")
        self.fails(done, NOT_SENT, "m3.parquet", "--recorded")
        self.store.before = lambda _, __: None
        project.publish("--recorded")
        self.assertEqual(self.once()[0], 0)

    def test_a_store_that_is_gone_keeps_no_record_back(self) -> None:
        project = self.project()
        build = project.write(1)
        self.store.close()
        done = project.attempt("--build", build)
        self.fails(done, NOT_SENT, "not reached", f"build {build} is recorded here", "--recorded")
        self.assertTrue((project.marts / f"_builds/{build}.json").exists())


class Listings(BrokenStore):
    def test_an_absurd_size_stops_no_other(self) -> None:
        project = self.project()
        project.build(1)
        sizes = [1 << 63, (1 << 64) - 1, 1 << 64, 10**40, -1]
        for number, size in enumerate([*sizes, (1 << 63) - 1, (1 << 63) - 1, (1 << 63) - 1]):
            key = f"{self.prefix}/absurd{number}.parquet"
            self.store.put(key, b"x")
            self.store.sizes[key] = str(size)
        code, said = self.once()
        self.assertEqual(code, 1)
        self.assertNotIn("panicked", said)
        self.assertIn("absurd", said)
        self.assertTrue((self.marts / "_builds/build-00001.json").exists(), said)
        project.build(2)
        self.once()
        self.assertTrue((self.marts / "_builds/build-00002.json").exists())

    def test_absurd_sizes_in_records_do_not_overflow(self) -> None:
        project = self.project()
        project.build(1)
        record = self.record("build-00001")
        for mart in record["marts"]:
            mart["files"][0]["bytes"] = (1 << 64) - 1
        record["build"]["id"] = "absurd"
        record["build"]["finished_at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        (project.marts / "_builds/absurd.json").write_text(json.dumps(record))
        done = project.attempt("--recorded")
        self.assertNotIn("panicked", done.stderr)

    def test_a_torn_object_is_not_fetched_without_end(self) -> None:
        self.store.put(f"{self.prefix}/good.parquet", b"whole")
        self.store.put(f"{self.prefix}/torn.parquet", b"torn", claim="0" * 64)
        with Mirror(self.store.endpoint, self.prefix, self.place) as mirror:
            wait_for("twenty listings", lambda: self.store.listings >= 20)
            self.assertIn("torn.parquet: its bytes are not those", str(mirror.status()["error"]))
        fetched = self.store.asked.count(("GET", f"{self.prefix}/torn.parquet"))
        self.assertTrue(2 <= fetched < self.store.listings / 2, f"{fetched} of {self.store.listings}")
        self.assertEqual((self.place / "mart/good.parquet").read_bytes(), b"whole")

    def test_a_listing_without_an_end_is_an_error(self) -> None:
        project = self.project()
        project.build(1)
        for tokens in (["t"], ["t1", "t2", "t3"]):
            self.store.tokens = tokens
            code, said = self.once()
            self.assertEqual(code, 1)
            self.assertIn("the same page", said)
        done = project.attempt("--recorded")
        self.fails(done, NOT_SENT, "the same page")
        self.store.tokens = []
        self.assertEqual(self.once()[0], 0)

    def test_a_condition_that_never_holds_is_told(self) -> None:
        self.project().build(1)
        self.store.refuses_conditions = True
        mirror = Mirror(self.store.endpoint, self.prefix, self.place)
        self.addCleanup(mirror.kill)
        wait_for("the reason is told", lambda: "as it lists it" in str(mirror.status().get("error")))
        self.store.refuses_conditions = False
        wait_for("all is well", lambda: mirror.status()["error"] is None)


if __name__ == "__main__":
    unittest.main()
