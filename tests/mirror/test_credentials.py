"""Each kind of credentials that `martd mirror` finds, from a real endpoint on loopback to a real store."""

from __future__ import annotations

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from issuers import ARN, Agent, Issuer, Metadata, Sts
from mirror import PROGRAM, Case, Mirror, Project, environment, store_flags, url, wait_for
from store import Store

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


class Credentials(Case):
    def setUp(self) -> None:
        super().setUp()
        self.token = self.directory / "token"
        self.token.write_text("token-1")

    def once(self, variables: dict[str, str]) -> tuple[int, str]:
        command = [PROGRAM, "mirror", url(self.prefix), "--dir", str(self.place), "--once"]
        command += store_flags(store.endpoint)
        nobody = {"AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"}
        done = subprocess.run(
            command, env=environment({**nobody, **variables}), capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr

    def lives(self, issuer: Issuer, variables: dict[str, str], kind: str, refusal: tuple[int, str], said: str) -> None:
        """The first credentials are used, later ones are fetched, a refusal is told with its kind, and it heals."""
        self.addCleanup(issuer.stop)
        project = Project(self.directory / "writer", store.endpoint, self.prefix)
        project.build(1)
        mirror = Mirror(store.endpoint, self.prefix, self.place, variables)
        self.addCleanup(mirror.kill)
        mirror.wait_until_equal()
        asked = issuer.asked
        wait_for("credentials are asked for again", lambda: issuer.asked > asked)

        def reason() -> str:
            return str((mirror.status()["error"] or {}).get("reason"))

        issuer.refusal = refusal
        wait_for("the refusal is told", lambda: said in reason() or None)
        self.assertIn(kind, reason())
        issuer.refusal = None
        mirror.wait_until_equal()
        first, _ = issuer.now
        store.revoke(first)
        wait_for("the store refuses them", lambda: "the store answers" in reason() or None)
        self.assertIn(kind, reason())
        issuer.now = (f"{first}-2", "secret-2")
        store.allow(*issuer.now)
        project.build(2)
        mirror.wait_until_equal()
        self.assertIsNone(mirror.status()["error"])
        for secret in ("secret-1", "secret-2", "token-1"):
            self.assertNotIn(secret, json.dumps(mirror.status()) + json.dumps(mirror.log))
        self.assertEqual(mirror.stop(), 0)

    def test_a_web_identity(self) -> None:
        authority, context = self.certificate()
        store.allow("identity", "secret-1")
        sts = Sts("identity", "secret-1", context)
        variables = {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(self.token),
            "AWS_ROLE_ARN": ARN,
            "AWS_ENDPOINT_URL_STS": sts.url,
            "MARTD_S3_CA_FILE": str(authority),
        }
        error = "<Error><Code>AccessDenied</Code><Message>Not this role.</Message></Error>"
        refusal = (403, f"<ErrorResponse>{error}</ErrorResponse>")
        self.lives(sts, variables, "web identity", refusal, "its endpoint answers AccessDenied: Not this role.")
        self.token.write_text("expired")
        code, said = self.once(variables)
        self.assertEqual(code, 1)
        self.assertIn("no credentials by the web identity", said)
        self.assertIn("answers InvalidIdentityToken: No such token.", said)
        self.token.unlink()
        self.assertIn(str(self.token), self.once(variables)[1])
        self.token.write_text("token-1")
        code, said = self.once({key: value for key, value in variables.items() if key != "MARTD_S3_CA_FILE"})
        self.assertEqual(code, 1)
        self.assertRegex(said, "(?i)web identity.*certificate")

    def test_a_containers_agent(self) -> None:
        store.allow("agent", "secret-1")
        agent = Agent("agent", "secret-1")
        variables = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.url}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(self.token),
        }
        self.lives(agent, variables, "the container's agent", (403, "no such pod"), "403 Forbidden: no such pod")
        self.token.write_text("expired")
        code, said = self.once(variables)
        self.assertEqual(code, 1)
        self.assertIn("no credentials by the container's agent", said)
        self.assertIn("who are you?", said)
        self.token.unlink()
        self.assertIn(str(self.token), self.once(variables)[1])

    def test_the_machines_role(self) -> None:
        store.allow("machine", "secret-1")
        metadata = Metadata("machine", "secret-1")
        self.lives(
            metadata, {"AWS_METADATA_ENDPOINT": metadata.url}, "the machine", (403, "no role here"), "no role here"
        )

    def test_no_credentials_at_all(self) -> None:
        code, said = self.once({})
        self.assertEqual(code, 1)
        self.assertIn("there are no credentials: none of AWS_ACCESS_KEY_ID, ", said)
        self.assertIn("its metadata service is not reached", said)
        self.assertIn("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", said)
        # What is set to nothing is not set.
        self.assertIn("none of AWS_ACCESS_KEY_ID", self.once({"AWS_ACCESS_KEY_ID": "", "AWS_ROLE_ARN": ""})[1])

    def test_a_kind_that_is_named_by_half(self) -> None:
        for variable, lacks in (
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
            ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            ("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"),
        ):
            code, said = self.once({variable: "x"})
            self.assertEqual((code, f"{variable} is set, and {lacks} is not" in said), (2, True), said)
        self.assertFalse(self.place.exists())

    def test_the_kind_that_is_refused_is_named(self) -> None:
        code, said = self.once({"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "wrong"})
        self.assertEqual(code, 1)
        self.assertIn("the store answers SignatureDoesNotMatch", said)
        self.assertIn("asked with the key in AWS_ACCESS_KEY_ID", said)


if __name__ == "__main__":
    unittest.main()
