"""`martd init` makes of a stock project what docs/dbt.md says, and martd then serves its builds."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from daemon import Daemon
from shop import HERE, PACKAGE, Shop, documented_lines


class Init(unittest.TestCase):
    def test_a_stock_project_needs_the_documented_lines(self):
        shop = Shop(Path(tempfile.mkdtemp(prefix="martd-shop-")))
        self.addCleanup(shutil.rmtree, shop.root)
        shutil.copytree(HERE / "shop", shop.project)
        before = {path.name: path.read_text() for path in shop.project.iterdir() if path.is_file()}
        command = [os.environ["MARTD_BIN"], "init", "--dbt", shop.project, "--parquet-dir", shop.marts.parent]
        patch = subprocess.run(command, capture_output=True, text=True, check=True)
        subprocess.run(["patch", "-p1", "-d", shop.project], input=patch.stdout, text=True, check=True, capture_output=True)
        # Where it is installed, unless this martd was built in the tree of the package.
        installed = "/usr/local/share/martd/dbt"
        package = str(PACKAGE) if f"local: {PACKAGE}" in patch.stdout else installed
        changed = 0
        for path, (old, new) in documented_lines().items():
            new = "\n".join(new).replace("/srv/parquet/mart", str(shop.marts)).replace(installed, package)
            text = before.pop(path, "")
            expected = text.replace("\n".join(old), new) if old else new + "\n"
            self.assertEqual((shop.project / path).read_text(), expected, path)
            changed += len(set(expected.splitlines()) - set(text.splitlines()))
        self.assertEqual(changed, 4)
        self.assertIn("4 added or changed lines", patch.stderr)

        shop.replace("packages.yml", package, str(PACKAGE))
        shop.dbt("deps")
        shop.dbt("build")
        daemon = Daemon(shop.marts.parent)
        self.addCleanup(daemon.stop)
        build = shop.last["build"]["id"]
        snapshot = daemon.get(f"/v1/snapshot?build={build}&wait=60")
        self.assertEqual(snapshot["build"]["invocation_id"], build)
        self.assertEqual({mart["name"] for mart in snapshot["marts"]}, {"orders", "customers"})


if __name__ == "__main__":
    unittest.main()
