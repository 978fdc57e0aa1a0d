from pathlib import Path

import pytest
from martd_client import Client, Settings
from martd_client.settings import Folder, Network


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://martd:8321", Network("martd", 8321)),
        ("http://martd/", Network("martd", 80)),
        ("http://[::1]:8321", Network("::1", 8321)),
        ("http+unix:///run/martd/martd.sock", Network("localhost", 80, "/run/martd/martd.sock")),
        ("http+unix:///with%20space", Network("localhost", 80, "/with space")),
        ("file:///srv/parquet", Folder(Path("/srv/parquet"))),
        ("file://localhost/srv/a%20b", Folder(Path("/srv/a b"))),
    ],
)
def test_urls(url, place):
    assert Settings(url).place() == place


@pytest.mark.parametrize(
    "url",
    ["martd:8321", "https://martd", "http://", "http://martd/api", "http://u:p@martd", "http://martd:x", "http://martd:99999",
     "http+unix://martd.sock", "http+unix:///", "file://", "file://host/srv", "ftp://x", "http://martd?x=1", ""],
)  # fmt: skip
def test_urls_that_are_wrong(url):
    with pytest.raises(ValueError, match="MARTD_URL is .*; use http://host:port"):
        Settings(url)


def test_the_environment():
    variables = {
        "MARTD_URL": "http://martd:1", "MARTD_TOKEN": "t", "MARTD_TIMEOUT": "2.5", "MARTD_RETRY": "0",
        "MARTD_READ_YOUR_BUILDS": "on", "MARTD_SCOPE_PARAM": "user_id", "DUCKDB_PATH": "/a.duckdb", "MARTD_UNSCOPED": "a,b",
    }  # fmt: skip
    assert Settings.from_environment(variables) == Settings(
        "http://martd:1", "t", 2.5, 0.0, "user_id", "/a.duckdb", frozenset({"a", "b"}), True
    )
    assert Settings.from_environment({name: "" for name in variables}) == Settings()


@pytest.mark.parametrize(("name", "value"), [("MARTD_TIMEOUT", "0"), ("MARTD_TIMEOUT", "soon"), ("MARTD_RETRY", "-1"), ("MARTD_TIMEOUT", "nan"), ("MARTD_READ_YOUR_BUILDS", "yes")])
def test_variables_that_are_wrong(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} (is|must be)"):
        Client()


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="colour"):
        Client("http://martd:1", colour="red")
