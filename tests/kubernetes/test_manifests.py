"""deploy/kubernetes without a cluster: the published schemas, and what martd's own documents say."""

import re
import unittest
from pathlib import Path

import kubernetes_validate
import render
import yaml

ROOT = Path(__file__).resolve().parents[2]
# The oldest that knows what is used, and the newest of which the schemas are at hand.
VERSIONS = ("1.29", "1.37")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SETTINGS = (ROOT / "docs/settings.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
CLIENT = (ROOT / "clients/python/README.md").read_text() + (ROOT / "examples/backend/README.md").read_text()
# What martd's defaults fit in: docs/operations.md.
LEAST_MEMORY = 512 << 20
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def documents(form):
    return list(yaml.safe_load_all((render.RENDERED / f"{form}.yaml").read_text()))


FORMS = {form: documents(form) for form in render.FORMS}


def of_kind(form, kind):
    return [document for document in FORMS[form] if document["kind"] == kind]


def pods():
    """(form, the pod's metadata, its spec)"""
    for form in FORMS:
        for deployment in of_kind(form, "Deployment"):
            template = deployment["spec"]["template"]
            yield form, template["metadata"], template["spec"]


def containers():
    """(form, pod, container)"""
    for form, _, pod in pods():
        for container in pod.get("initContainers", []) + pod["containers"]:
            yield form, pod, container


def image(container):
    """Its name in the repository: overlays say the registry and the version."""
    return container["image"].rsplit("/", 1)[-1].split(":")[0]


def command(container):
    return (container.get("args") or [None])[0]


def environment(container):
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def port(container, name):
    found = [port["containerPort"] for port in container["ports"] if name in (port["name"], port["containerPort"])]
    assert len(found) == 1, f"{container['name']} has {len(found)} ports {name}"
    return found[0]


def probes(container):
    return [probe for name, probe in container.items() if name.endswith("Probe")]


def mount(container, path):
    """The mount that holds a path."""
    found = [each for each in container["volumeMounts"] if Path(path).is_relative_to(each["mountPath"])]
    return max(found, key=lambda each: len(each["mountPath"]))


def size(quantity):
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def seconds(name, container):
    """A time of the container's, or its default."""
    default = re.search(rf"^\| `{name}`<br>[^|]*\| `([^`]*)`", SETTINGS, re.M)[1]
    text = environment(container).get(name, default)
    return int(text[:-2]) / 1000 if text.endswith("ms") else int(text.removesuffix("s"))


class Rendered(unittest.TestCase):
    def test_it_is_of_the_sources(self):
        advice = "run tests/kubernetes/render.py"
        for form in render.FORMS:
            text = (render.RENDERED / f"{form}.yaml").read_text()
            self.assertIn(render.digest(), text.splitlines()[0], advice)
            if render.command() is None:
                print("SKIPPED: neither kustomize nor kubectl is installed, so nothing is rendered anew")
                continue
            # Of one version of kustomize and another, what they come to is the same.
            self.assertEqual(documents(form), list(yaml.safe_load_all(render.render(form))), advice)

    def test_every_overlay_is_one_of_the_forms(self):
        overlays = {path.name for path in (render.SOURCES / "overlays").iterdir()}
        self.assertEqual(overlays, set(render.FORMS))


class Schemas(unittest.TestCase):
    def test_every_manifest_is_as_published(self):
        for form, manifests in FORMS.items():
            kinds = {manifest["kind"] for manifest in manifests}
            self.assertLessEqual({"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}, kinds, form)
            for manifest in manifests:
                for version in VERSIONS:
                    with self.subTest(form=form, kind=manifest["kind"], version=version):
                        kubernetes_validate.validate(manifest, version, strict=True)

    def test_what_is_wrong_is_found(self):
        manifest = {**of_kind("replicas", "Service")[0], "spec": {"port": 1}}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifest, VERSIONS[1], strict=True)


class Settings(unittest.TestCase):
    def test_every_variable_is_a_setting(self):
        for form, _, container in containers():
            known = SETTINGS if image(container) == "martd" else CLIENT
            names = set(re.findall(r"`(\w+)`", known))
            if command(container) == "mirror":
                # What is named by place has no flag, and is no setting of the document's.
                names |= set(re.findall(r'arg\(env = "(\w+)"', (ROOT / "src/commands/mirror.rs").read_text()))
            self.assertLessEqual(set(environment(container)), names, f"{form}: {container['name']}")

    def test_every_command_is_one_of_martds(self):
        commands = set(re.findall(r"^\| `martd (\w+)", OPERATIONS, re.M))
        for form, _, container in containers():
            if image(container) == "martd":
                self.assertIn(command(container), commands, form)

    def test_images_and_users_are_those_of_the_repository(self):
        built = {service["image"] for service in COMPOSE.values() if "build" in service}
        dockerfiles = {"martd": "Dockerfile", "martd-backend": "examples/backend/Dockerfile"}
        for form, pod, container in containers():
            self.assertIn(image(container), built, form)
            users = re.findall(r"^USER (\d+):(\d+)$", (ROOT / dockerfiles[image(container)]).read_text(), re.M)
            context = pod["securityContext"]
            self.assertEqual(users[-1], (str(context["runAsUser"]), str(context["runAsGroup"])), form)
        sources = [yaml.safe_load(path.read_text()) for path in render.SOURCES.glob("base/*/deployment.yaml")]
        for source in sources:
            pod = source["spec"]["template"]["spec"]
            for container in pod["initContainers"] + pod["containers"]:
                self.assertIn(container["image"], built)


class Ports(unittest.TestCase):
    def test_what_is_probed_is_served(self):
        routes = {
            "martd": (ROOT / "src/http/openapi.json").read_text(),
            "martd-backend": (ROOT / "examples/backend/backend/app.py").read_text(),
        }
        probed = set()
        for form, _, container in containers():
            for probe in probes(container):
                path = probe["httpGet"]["path"]
                self.assertIn(f'"{path}"', routes[image(container)], form)
                asked = port(container, probe["httpGet"]["port"])
                if image(container) == "martd":
                    # The node asks, from outside of the pod.
                    self.assertEqual(environment(container)["MARTD_ADMIN_LISTEN"], f"0.0.0.0:{asked}", form)
                probed.add((form, image(container), path))
        for form in FORMS:
            self.assertLessEqual({(form, "martd", "/readyz"), (form, "martd", "/livez")}, probed)

    def test_services_and_policies_lead_to_open_ports(self):
        for form, metadata, pod in pods():
            ports = {}
            for container in pod.get("initContainers", []) + pod["containers"]:
                ports |= {each["name"]: each["containerPort"] for each in container.get("ports", [])}
            for service in of_kind(form, "Service"):
                self.assertLessEqual(service["spec"]["selector"].items(), metadata["labels"].items(), form)
                self.assertLessEqual({each["targetPort"] for each in service["spec"]["ports"]}, set(ports), form)
            for kind, key in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
                for selecting in of_kind(form, kind):
                    selected = selecting["spec"][key]["matchLabels"]
                    self.assertLessEqual(selected.items(), metadata["labels"].items(), f"{form}: {kind}")
            for policy in of_kind(form, "NetworkPolicy"):
                for rule in policy["spec"]["ingress"]:
                    self.assertLessEqual({each["port"] for each in rule["ports"]}, set(ports), form)

    def test_where_others_reach_martd_it_asks_for_a_token(self):
        for form, _, container in containers():
            if command(container) == "serve":
                listen, settings = environment(container)["MARTD_LISTEN"], environment(container)
                self.assertTrue(listen.startswith("127.0.0.1:") or "MARTD_TOKEN_FILE" in settings, form)
                listens = [each["containerPort"] for each in container["ports"]]
                self.assertEqual(int(listen.rsplit(":", 1)[1]) in listens, not listen.startswith("127."), form)


class Resources(unittest.TestCase):
    def test_memory_is_what_martd_plans_with(self):
        for form, pod, container in containers():
            resources = container["resources"]
            self.assertEqual(resources["requests"]["memory"], resources["limits"]["memory"], form)
            if command(container) == "serve":
                self.assertGreaterEqual(size(resources["limits"]["memory"]), LEAST_MEMORY, form)
                # Without it martd takes as many slots as its node has processors.
                self.assertIn("cpu", resources["limits"], form)
                shares = {"MARTD_MEMORY", "MARTD_PIN_MEMORY", "MARTD_TABLE_MEMORY", "MARTD_CACHE"}
                self.assertFalse(shares & environment(container).keys(), f"{form}: the defaults are what fits")
            for volume in pod["volumes"]:
                self.assertNotIn("medium", volume.get("emptyDir", {}), f"{form}: memory of the container's")

    def test_a_pod_has_longer_to_end_than_what_is_in_it(self):
        for form, pod, container in containers():
            if command(container) == "serve":
                drain = seconds("MARTD_DRAIN_DELAY", container) + seconds("MARTD_DRAIN", container)
                others = 30 if "backend" in [each["name"] for each in pod["containers"]] else 0
                self.assertGreater(pod["terminationGracePeriodSeconds"], drain + others, form)


class Rights(unittest.TestCase):
    def test_there_are_none(self):
        for form, pod, container in containers():
            context = container["securityContext"]
            self.assertIs(context["readOnlyRootFilesystem"], True, form)
            self.assertIs(context["allowPrivilegeEscalation"], False, form)
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, form)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True, form)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, form)
            self.assertIs(pod["automountServiceAccountToken"], False, form)

    def test_each_writes_where_it_must_and_nowhere_else(self):
        for form, pod, container in containers():
            if image(container) != "martd":
                continue
            settings = environment(container)
            is_mirror = command(container) == "mirror"
            marts = mount(container, settings["PARQUET_DIR"])
            # The parent of mart/ is mounted: a mount of it would show a directory that was replaced.
            self.assertEqual(marts["mountPath"], settings["PARQUET_DIR"], form)
            self.assertEqual(marts.get("readOnly", False), not is_mirror, form)
            if not is_mirror:
                self.assertFalse(mount(container, settings["MARTD_STATE_DIR"]).get("readOnly", False), form)
                self.assertEqual(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"], form)
            volumes = {volume["name"] for volume in pod["volumes"]}
            self.assertLessEqual({each["name"] for each in container["volumeMounts"]}, volumes, form)
            if "MARTD_TOKEN_FILE" in settings:
                tokens = mount(container, settings["MARTD_TOKEN_FILE"])["name"]
                self.assertIn("secret", next(volume for volume in pod["volumes"] if volume["name"] == tokens))

    def test_somebody_fills_each_directory_of_marts(self):
        for form, _, pod in pods():
            mirrors = [c for c in pod["initContainers"] if command(c) == "mirror"]
            volume = next(volume for volume in pod["volumes"] if volume["name"] == "marts")
            self.assertEqual("persistentVolumeClaim" in volume, not mirrors, form)
            claims = {claim["metadata"]["name"] for claim in of_kind(form, "PersistentVolumeClaim")}
            for mirror in mirrors:
                self.assertRegex(environment(mirror)["MARTD_MIRROR_URL"], "^s3://", form)
            if not mirrors:
                self.assertIn(volume["persistentVolumeClaim"]["claimName"], claims, form)


class Document(unittest.TestCase):
    def test_it_says_what_was_not_tried(self):
        text = (ROOT / "docs/kubernetes.md").read_text()
        self.assertIn("has not run on a cluster", text)
        for form in render.FORMS:
            self.assertIn(f"overlays/{form}", text)


if __name__ == "__main__":
    unittest.main()
