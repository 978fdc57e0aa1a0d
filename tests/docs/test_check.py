"""The check of documents finds what it is there for."""

import tempfile
import unittest
from pathlib import Path

import check

GOOD = """# A title

See [below](#more-of-it) and [the file](other.md#here).

## More of it

```console
$ echo one two
one …
$ printf '%s\\n' 'a
b'
a
b
$ echo 2026-11-28T11:30:55.8Z
2026-01-01T00:00:00Z
```

```sh
test -e orders.parquet && test -e lake/mart/orders.parquet
```

```sh no-run: needs root
sudo make install
```
"""


class Check(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.scratch / "other.md").write_text("# Here\n")
        (self.scratch / "run").mkdir()

    def faults(self, text: str) -> list[str]:
        document = self.scratch / "document.md"
        document.write_text(text)
        with tempfile.TemporaryDirectory() as scratch:
            examples = check.Examples(Path("/bin/false"), check.PORT, check.PG_PORT, Path(scratch))
            folder = examples.folder("document")
            found = [*check.broken_links(document), *check.shape(document)]
            return found + [fault for block in check.blocks(text) for fault in examples.run(block, folder)]

    def test_a_good_document_has_no_faults(self) -> None:
        self.assertEqual(self.faults(GOOD), [])

    def test_each_broken_example_and_link_is_found(self) -> None:
        for good, bad in [
            ("one …", "two …"),
            ("$ echo one two", "$ echo two"),
            ("2026-01-01T00:00:00Z", "2026"),
            ("test -e orders", "test -e no-orders"),
            ("make install", "make instal"),
            ("no-run: needs root", "no-run:"),
            ("sudo make install", "sudo make install '"),
            ("```sh\n", "```\n"),
            ("```sh\n", "```shell\n"),
            ("#more-of-it", "#less-of-it"),
            ("other.md#here", "other.md#there"),
            ("other.md#here", "another.md"),
            ("See [below]", "    echo code\n\nSee [below]"),
        ]:
            with self.subTest(bad):
                self.assertIn(good, GOOD)
                self.assertEqual(len(self.faults(GOOD.replace(good, bad))), 1)

    def test_values_must_be_those_that_are_told(self) -> None:
        self.assertFalse(check.differs('{"a":1,\n "id":"' + "a" * 32 + '",…}', '{"a":1,"id":"' + "b" * 32 + '","c":2}'))
        self.assertTrue(check.differs('{"a":1}', '{"a":2}'))
        self.assertTrue(check.differs("a\nb", "a b"))
        self.assertTrue(check.differs("", "an error"))


if __name__ == "__main__":
    unittest.main()
