"""The manifests of deploy/kubernetes as kustomize renders them. `python render.py` writes rendered/ anew.

Each file names the digest of what it was rendered from, so that a change is noticed where there is no kustomize.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
RENDERED = Path(__file__).resolve().parent / "rendered"
FORMS = ("replicas", "sidecar-bucket", "sidecar-volume")


def digest():
    """Of all files that kustomize may read."""
    hasher = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.yaml")):
        hasher.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes() + b"\0")
    return hasher.hexdigest()


def command():
    """kustomize, by itself or in kubectl; none where neither is."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def render(form):
    """A form, with the digest before it."""
    output = subprocess.run([*command(), SOURCES / "overlays" / form], capture_output=True, text=True)
    if output.returncode:
        raise RuntimeError(f"overlays/{form}: {output.stderr}")
    return f"# Rendered by tests/kubernetes/render.py from sources with the digest {digest()}\n{output.stdout}"


if __name__ == "__main__":
    if command() is None:
        sys.exit("neither kustomize nor kubectl is installed (Debian: apt install kubectl, or kubernetes-client)")
    for form in FORMS:
        (RENDERED / f"{form}.yaml").write_text(render(form))
