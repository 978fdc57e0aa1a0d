"""What can be known of the containers without an engine: the compose file's invariants, and that the commands
of the Dockerfiles are ones that exist here and are tested."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = sorted(set(SERVICES) - {"postgres"})
LEGACY = "/app/data/legacy"


def mounts(name):
    """(source, target, whether it is read-only) of each."""
    for volume in SERVICES[name].get("volumes", []):
        source, target, *options = volume.split(":")
        yield source, target, "ro" in options


def mount(name, source):
    found = [(target, read_only) for mounted, target, read_only in mounts(name) if mounted == source]
    assert len(found) == 1, f"{name} mounts {source} {len(found)} times"
    return found[0]


def waits_for(name):
    """Whoever has to be up, healthy or done before this one, and those before them."""
    seen, todo = set(), list(SERVICES[name].get("depends_on", {}))
    while todo:
        before = todo.pop()
        if before not in seen:
            seen.add(before)
            todo += SERVICES[before].get("depends_on", {})
    return seen


def instructions(path):
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (ROOT / path).read_text(), flags=re.M))
    return [line.split(None, 1) for line in text.splitlines() if line.strip()]


def stages(path):
    found = []
    for word, rest in instructions(path):
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


class Mounts(unittest.TestCase):
    def test_the_parent_of_the_marts_is_mounted_everywhere(self):
        for name in ("first-build", "martd", "dagster-daemon", "dagster-webserver"):
            target, _ = mount(name, "./data/parquet")
            self.assertEqual(SERVICES[name]["environment"]["PARQUET_DIR"], target, name)
            for source, _, _ in mounts(name):
                self.assertFalse(source.rstrip("/").endswith("mart"), f"{name} mounts {source}")

    def test_marts_are_written_by_those_that_run_dbt_alone(self):
        writers = {name for name in SERVICES for source, _, read_only in mounts(name) if source == "./data/parquet" and not read_only}
        self.assertEqual(writers, {"first-build", "dagster-daemon"})

    def test_no_duckdb_file_is_shared(self):
        self.assertNotIn("duckdb_data", COMPOSE["volumes"])
        for name in ("first-build", "dagster-daemon", "dagster-webserver"):
            path = SERVICES[name]["environment"]["DUCKDB_PATH"]
            self.assertEqual(path, "/tmp/dbt_build.duckdb", name)
            self.assertIn("/tmp", [mounted.split(":")[0] for mounted in SERVICES[name]["tmpfs"]])
            self.assertFalse([target for _, target, _ in mounts(name) if path.startswith(target)], name)
        shared = {source for name in SERVICES for source, _, read_only in mounts(name) if source == "./data/legacy" and not read_only}
        self.assertEqual(shared, set())

    def test_named_volumes_are_declared_and_used(self):
        used = {source for name in SERVICES for source, _, _ in mounts(name) if not source.startswith(".")}
        self.assertEqual(used, set(COMPOSE["volumes"]))

    def test_what_is_mounted_from_the_repository_is_there(self):
        for name in SERVICES:
            for source, _, _ in mounts(name):
                if source.startswith("./") and not source.startswith("./data"):
                    self.assertTrue((ROOT / source).is_file(), f"{name}: {source}")


class RollbackReasons(unittest.TestCase):
    """Two of the reasons for which the first attempt at this migration was rolled back."""

    def test_a_fallback_file_that_was_not_mounted(self):
        path = SERVICES["martd"]["environment"]["DUCKDB_PATH"]
        target, read_only = mount("martd", "./data/legacy")
        self.assertEqual(os.path.dirname(path), target, "the folder of the fallback is what is mounted, with its WAL")
        self.assertTrue(read_only)
        self.assertEqual(SERVICES["martd"]["environment"]["MARTD_FALLBACK"], "${MARTD_FALLBACK:-on}")
        others = [name for name in SERVICES if name != "martd" and "DUCKDB_PATH" in SERVICES[name].get("environment", {})]
        for name in others:
            self.assertNotIn(LEGACY, SERVICES[name]["environment"]["DUCKDB_PATH"], f"{name} names a file that it does not have")

    def test_a_webserver_runs_no_dbt_on_a_read_only_mount(self):
        webserver = SERVICES["dagster-webserver"]
        self.assertTrue(mount("dagster-webserver", "./data/parquet")[1], "it only looks")
        self.assertNotIn("command", webserver)
        self.assertNotIn("entrypoint", webserver)
        self.assertFalse({name for name in webserver["environment"] if name.startswith("POSTGRES")}, "it could not build anything")
        [last] = [rest for word, rest in stages("dbt/Dockerfile")[-1] if word == "CMD"]
        self.assertTrue(last.startswith('["dagster-webserver", '), last)
        self.assertNotIn("dbt ", last)
        coordinator = yaml.safe_load((ROOT / "dbt/orchestration/dagster.yaml").read_text())["run_coordinator"]["class"]
        self.assertEqual(coordinator, "QueuedRunCoordinator", "runs are the daemon's, where the mount is writable")
        self.assertEqual(mount("dagster-webserver", "dagster_home"), mount("dagster-daemon", "dagster_home"))


class Starting(unittest.TestCase):
    def test_the_backend_waits_until_martd_is_ready(self):
        self.assertEqual(SERVICES["backend"]["depends_on"], {"martd": {"condition": "service_healthy"}})
        self.assertEqual(SERVICES["martd"]["healthcheck"]["test"], ["CMD", "/usr/local/bin/martd", "healthcheck"])

    def test_martd_is_ready_with_the_first_whole_build(self):
        environment = SERVICES["martd"]["environment"]
        self.assertEqual((environment["MARTD_PUBLISH"], environment["MARTD_UNVERIFIED"]), ("build", "refuse"))

    def test_health_checks_are_cheap_also_on_old_engines(self):
        seconds = lambda text: int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]
        for name, service in SERVICES.items():
            check = service.get("healthcheck", {})
            self.assertNotIn("start_interval", check, "Docker before 25 does not know it")
            if check:
                self.assertGreaterEqual(seconds(check["interval"]), 300 if "dagster-daemon" in check["test"] else 5, name)
        for path in ("Dockerfile", "dbt/Dockerfile", "examples/backend/Dockerfile"):
            for word, rest in instructions(path):
                self.assertFalse(word == "HEALTHCHECK" and "--start-interval" in rest, path)

    def test_a_webserver_without_its_code_is_not_healthy(self):
        test = SERVICES["dagster-webserver"]["healthcheck"]["test"]
        self.assertEqual(test[:2], ["CMD", "python"])
        self.assertTrue((ROOT / "dbt" / test[2]).is_file(), test)

    def test_a_starting_daemon_reports_interrupted_runs(self):
        [command] = [rest for stage in stages("dbt/Dockerfile") for word, rest in stage if word == "CMD" and "daemon" in rest]
        self.assertIn("exec python -m orchestration.start_daemon", command)
        self.assertTrue((ROOT / "dbt/orchestration/start_daemon.py").is_file())
        self.assertTrue(yaml.safe_load((ROOT / "dbt/orchestration/dagster.yaml").read_text())["run_monitoring"]["enabled"])

    def test_a_fresh_start_cannot_wait_for_itself(self):
        for name in SERVICES:
            self.assertNotIn(name, waits_for(name))
        # martd is ready once there is a build, so nobody who makes one may wait for it.
        self.assertEqual(waits_for("first-build"), {"postgres"})
        self.assertNotIn("martd", waits_for("dagster-daemon"))
        self.assertEqual(SERVICES["first-build"]["restart"], "no")

    def test_one_dbt_at_a_time(self):
        self.assertEqual(SERVICES["dagster-daemon"]["depends_on"]["first-build"], {"condition": "service_completed_successfully"})

    def test_conditions_can_come_true(self):
        for name, service in SERVICES.items():
            for before, how in service.get("depends_on", {}).items():
                if how["condition"] == "service_healthy":
                    self.assertIn("healthcheck", SERVICES[before], f"{name} waits for the health of {before}")


class LockedDown(unittest.TestCase):
    def test_our_images_are_read_only_without_capabilities(self):
        for name in OURS:
            service = SERVICES[name]
            self.assertIs(service["read_only"], True, name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertNotIn("cap_add", service, name)
            self.assertNotIn("privileged", service, name)
            self.assertIn("no-new-privileges:true", service["security_opt"], name)

    def test_what_is_read_only_has_its_state_on_a_volume(self):
        state, = re.findall(r"MARTD_STATE_DIR=(\S+)", (ROOT / "Dockerfile").read_text())
        self.assertIn(state, [target for _, target, read_only in mounts("martd") if not read_only])
        command, = re.findall(r"^docker run (?:.*\\\n)*.*$", (ROOT / "docs/operations.md").read_text(), flags=re.M)
        self.assertIn("--read-only", command)
        self.assertRegex(command, rf"--volume \w+:{state}(?=\s)")

    def test_ports_are_open_to_this_machine_alone(self):
        for name, service in SERVICES.items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")
        self.assertNotIn("ports", SERVICES["martd"])

    def test_martd_on_the_network_asks_for_a_token(self):
        environment = SERVICES["martd"]["environment"]
        self.assertTrue(environment["MARTD_LISTEN"].startswith("0.0.0.0:"))
        self.assertEqual(environment["MARTD_TOKEN_FILE"], "/run/secrets/martd_tokens")
        self.assertEqual(SERVICES["martd"]["secrets"], ["martd_tokens"])
        for client in ("backend", "dagster-daemon"):
            self.assertRegex(SERVICES[client]["environment"]["MARTD_TOKEN"], r"^\$\{MARTD_\w+_TOKEN:\?")
            self.assertEqual(SERVICES[client]["environment"]["MARTD_URL"], "http://martd:8321")

    def test_no_secret_is_in_the_file(self):
        text = (ROOT / "docker-compose.yml").read_text()
        for line in re.findall(r"^.*(?:PASSWORD|TOKEN):.*$", text, flags=re.M):
            self.assertIn("${", line, line)


class Memory(unittest.TestCase):
    def test_what_is_memory_is_bounded(self):
        for name in OURS:
            for mounted in SERVICES[name]["tmpfs"]:
                self.assertRegex(mounted, r"^/\w+:size=\d+[mg]$", name)

    def test_martd_has_a_limit_that_its_defaults_fit(self):
        limit = re.fullmatch(r"(\d+)g", SERVICES["martd"]["mem_limit"])
        self.assertGreaterEqual(int(limit[1]), 1, "the defaults fit 512 MiB, and builders come on top")
        self.assertFalse([name for name in SERVICES["martd"]["environment"] if "MEMORY" in name or "CACHE" in name])


class Files(unittest.TestCase):
    def test_compose_files_makes_and_keeps_what_is_mounted(self):
        with tempfile.TemporaryDirectory() as directory:
            run = lambda: subprocess.run([ROOT / "scripts/compose-files", directory], check=True, capture_output=True)
            run()
            root = Path(directory)
            settings = dict(line.split("=", 1) for line in (root / ".env").read_text().splitlines())
            wanted = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
            self.assertLessEqual(wanted, set(settings))
            tokens = [line.split()[0] for line in (root / "secrets/martd_tokens").read_text().splitlines() if not line.startswith("#")]
            self.assertEqual(tokens, [settings["MARTD_BACKEND_TOKEN"], settings["MARTD_DAGSTER_TOKEN"]])
            self.assertNotEqual(*tokens)
            self.assertEqual((root / ".env").stat().st_mode & 0o077, 0)
            self.assertEqual((root / "secrets").stat().st_mode & 0o077, 0)
            self.assertTrue((root / "data/parquet/mart").is_dir() and (root / "data/legacy").is_dir())
            run()
            self.assertEqual(settings, dict(line.split("=", 1) for line in (root / ".env").read_text().splitlines()))


class Dockerfiles(unittest.TestCase):
    def test_commands_are_targets_of_the_makefile(self):
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
        ran = []
        for word, rest in instructions("Dockerfile"):
            if word == "RUN" and not rest.startswith("apt-get "):
                self.assertRegex(rest, r"^make [a-z-]+( [A-Z_]+=\S+)*$")
                ran.append(rest.split()[1])
        self.assertEqual(ran, ["duckdb", "build", "install", "state-dir"])
        self.assertLessEqual(set(ran), targets)

    def test_no_other_path_has_the_build_folder_in_it(self):
        # `make install` looks for that folder in the binary, which names files of Rust's library and of crates.
        [folder] = [rest for word, rest in stages("Dockerfile")[1] if word == "WORKDIR"]
        for path in ("/rustc/0a1b2c/library/std/src/sys/time.rs", "/crates/index.crates.io-0a1b/h2-0.1/src/lib.rs", "/lib/x86_64-linux-gnu"):
            self.assertNotIn(folder, path)

    def test_the_last_stage_of_martd_has_no_shell_or_root(self):
        last = stages("Dockerfile")[-1]
        self.assertRegex(last[0][1], r"^gcr\.io/distroless/cc-debian12:nonroot$")
        self.assertNotIn("RUN", [word for word, _ in last])
        self.assertIn(("USER", "65532:65532"), last)
        for word, rest in last:
            if word in ("CMD", "ENTRYPOINT"):
                self.assertTrue(rest.startswith("["), "there is no shell to read it")
        [check] = [rest for word, rest in last if word == "HEALTHCHECK"]
        self.assertTrue(check.endswith('CMD ["/usr/local/bin/martd", "healthcheck"]'), check)

    def test_what_the_stages_copy_is_in_the_repository(self):
        for path, context in (("Dockerfile", "."), ("dbt/Dockerfile", "dbt"), ("examples/backend/Dockerfile", ".")):
            for word, rest in instructions(path):
                if word == "COPY" and "--from" not in rest:
                    for source in rest.split()[:-1]:
                        self.assertTrue((ROOT / context / source).exists(), f"{path}: {source}")

    def test_install_puts_files_where_the_last_stage_looks(self):
        copied = [rest.split()[-2] for word, rest in stages("Dockerfile")[-1] if word == "COPY"]
        with tempfile.TemporaryDirectory() as directory:
            fake = Path(directory) / "martd"
            # It is asked for completions.
            fake.write_bytes(b"#!/bin/sh\nexit # $ORIGIN:$ORIGIN/../lib/martd:/duckdb\0")
            fake.chmod(0o755)
            (Path(directory) / "libduckdb.so").write_bytes(b"")
            for target in ("install", "state-dir"):
                settings = [f"MARTD={fake}", f"DUCKDB_LIB_DIR={directory}", f"DESTDIR={directory}/out", "PREFIX=/usr/local"]
                subprocess.run(["make", "--silent", "-C", ROOT, target, *settings], check=True, capture_output=True)
            for path in copied:
                self.assertTrue(Path(directory + path).exists(), path)

    def test_the_state_directory_keeps_its_mode(self):
        # COPY makes a folder that it is told to copy anew, 0755, and takes what is in it as it is.
        copied = [rest.split()[-2:] for word, rest in stages("Dockerfile")[-1] if word == "COPY" and "/var/lib" in rest]
        self.assertEqual(copied, [["/out/var/lib/", "/var/lib/"]])
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["make", "--silent", "-C", ROOT, "state-dir", f"DESTDIR={directory}"], check=True, capture_output=True)
            self.assertEqual((Path(directory) / "var/lib/martd").stat().st_mode & 0o777, 0o700)

    def test_each_image_is_built_once(self):
        built = [service["image"] for service in SERVICES.values() if "build" in service]
        self.assertEqual(sorted(built), sorted(set(built)))
        for name, service in SERVICES.items():
            if service["image"] in built and "build" not in service:
                self.assertEqual(service["pull_policy"], "never", name)

    def test_what_dbt_leaves_is_not_sent_to_the_build(self):
        for folder, names in ((".", {".git", "data", "secrets", ".env", "target"}), ("dbt", {"target", "logs"})):
            ignored = set((ROOT / folder / ".dockerignore").read_text().split())
            self.assertLessEqual(names, ignored, folder)

    def test_images_of_clients_run_as_nobody(self):
        for path in ("dbt/Dockerfile", "examples/backend/Dockerfile"):
            users = [rest for word, rest in instructions(path) if word == "USER"]
            self.assertNotIn(users[-1], ("root", "0"), path)

    def test_services_build_stages_that_there_are(self):
        names = {m[1] for _, rest in instructions("dbt/Dockerfile") if (m := re.match(r"\S+ AS (\w+)$", rest))}
        for name, service in SERVICES.items():
            build = service.get("build")
            if isinstance(build, dict):
                path = ROOT / build.get("context", ".") / build.get("dockerfile", "Dockerfile")
                if build["context"] == ".":
                    path = ROOT / build["dockerfile"]
                self.assertTrue(path.is_file(), name)
                if "target" in build:
                    self.assertIn(build["target"], names, name)


if __name__ == "__main__":
    unittest.main()
