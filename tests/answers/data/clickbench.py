"""ClickBench's `hits`: 105 columns, most of them small numbers, a few texts that repeat a lot."""

from __future__ import annotations

from pathlib import Path

from data.write import pick, write_marts

SITES = ["http://www.google.com", "https://example.org", "http://shop.example.com", "http://maps.google.ru"]
WORDS = ["weather", "cheap flights", "Google maps", "football", "news today", "how to cook rice"]
TITLES = ["Google - search", "Start page", "News of the day", "Shop", "Forum / Google talk", ""]


def url(what: str) -> str:
    path = f"'/' || (h(i, '{what}page') % 100) * (h(i, '{what}page') % 37) || '/index.html?q=' || h(i, '{what}q') % 20"
    return f"if(h(i, '{what}') % 8 = 0, '', {pick(SITES, f'h(i, {what!r})')} || {path})"


PHRASE = pick(WORDS, "h(i, 'word')")
SMALL = "h(i, '{name}') % {values}"
# A third of the hits is from two days, the others are from the whole month.
MINUTES = """TIMESTAMP '2013-07-01' + INTERVAL (if(i % 3 = 1, 18720, 0) + h(i, '{name}') % if(i % 3 = 1, 2880, 44640)) MINUTE"""
# The columns in their order: a type, and where they are not numbers of the usual kind, what is in them.
COLUMNS: list[tuple[str, str, str]] = [
    ("WatchID", "BIGINT", "h(i, 'watch') * 977"),
    ("JavaEnable", "SMALLINT", "2"),
    ("Title", "VARCHAR", pick(TITLES, "h(i, 'title')")),
    ("GoodEvent", "SMALLINT", "1"),
    ("EventTime", "TIMESTAMP", MINUTES.format(name="time") + " + INTERVAL (i % 60) SECOND"),
    ("EventDate", "DATE", MINUTES.format(name="time")),
    ("CounterID", "INTEGER", "if(h(i, 'counter') % 3 = 0, 62, h(i, 'counter') % 4000)"),
    ("ClientIP", "INTEGER", "h(i // 3, 'ip') % 4294967296 - 2147483648"),
    ("RegionID", "INTEGER", "300"),
    ("UserID", "BIGINT", "if(i % 1000 = 7, 435090932899640449, h(h(i, 'u') % 5000, 'user') * 977)"),
    *((name, "SMALLINT", "3") for name in ("CounterClass", "OS", "UserAgent")),
    ("URL", "VARCHAR", url("url")),
    ("Referer", "VARCHAR", url("ref")),
    ("IsRefresh", "SMALLINT", "(h(i, 'refresh') % 8 = 0)::INT"),
    *((name, "SMALLINT", "20") for name in ("RefererCategoryID",)),
    ("RefererRegionID", "INTEGER", "300"),
    ("URLCategoryID", "SMALLINT", "20"),
    ("URLRegionID", "INTEGER", "300"),
    *((name, "SMALLINT", "2000") for name in ("ResolutionWidth", "ResolutionHeight")),
    *((name, "SMALLINT", "30") for name in ("ResolutionDepth", "FlashMajor", "FlashMinor")),
    ("FlashMinor2", "VARCHAR", "'.' || h(i, 'flash') % 4"),
    *((name, "SMALLINT", "40") for name in ("NetMajor", "NetMinor", "UserAgentMajor")),
    ("UserAgentMinor", "VARCHAR", pick(["D", "0", ""], "h(i, 'agent')")),
    *((name, "SMALLINT", "2") for name in ("CookieEnable", "JavascriptEnable", "IsMobile")),
    ("MobilePhone", "SMALLINT", "9"),
    ("MobilePhoneModel", "VARCHAR", pick(["", "", "", "iPad", "iPhone 2", "GT-I9500", "Nokia"], "h(i, 'phone')")),
    ("Params", "VARCHAR", "''"),
    ("IPNetworkID", "INTEGER", "4000000"),
    ("TraficSourceID", "SMALLINT", "h(i, 'trafic') % 8 - 1"),
    ("SearchEngineID", "SMALLINT", "if(i % 3 = 0, h(i, 'engine') % 5, 0)"),
    ("SearchPhrase", "VARCHAR", f"if(i % 3 = 0, {PHRASE} || ' ' || h(i, 'n') % 60, '')"),
    ("AdvEngineID", "SMALLINT", "if(i % 20 = 0, h(i, 'adv') % 30, 0)"),
    *((name, "SMALLINT", "2") for name in ("IsArtifical",)),
    *((name, "SMALLINT", "1500") for name in ("WindowClientWidth", "WindowClientHeight")),
    ("ClientTimeZone", "SMALLINT", "h(i, 'zone') % 24 * 60 - 720"),
    ("ClientEventTime", "TIMESTAMP", MINUTES.format(name="clienttime")),
    *((name, "SMALLINT", "9") for name in ("SilverlightVersion1", "SilverlightVersion2")),
    ("SilverlightVersion3", "INTEGER", "50000"),
    ("SilverlightVersion4", "SMALLINT", "2"),
    ("PageCharset", "VARCHAR", pick(["utf-8", "windows-1251", ""], "h(i, 'charset')")),
    ("CodeVersion", "INTEGER", "2000"),
    *((name, "SMALLINT", "2") for name in ("IsLink", "IsDownload", "IsNotBounce")),
    ("FUniqID", "BIGINT", "h(i, 'funiq') * 977"),
    ("OriginalURL", "VARCHAR", url("orig")),
    ("HID", "INTEGER", "2000000000"),
    *((name, "SMALLINT", "2") for name in ("IsOldCounter", "IsEvent", "IsParameter")),
    ("DontCountHits", "SMALLINT", "(h(i, 'count') % 12 = 0)::INT"),
    ("WithHash", "SMALLINT", "2"),
    ("HitColor", "VARCHAR", pick(["5", "E", "T"], "h(i, 'colour')")),
    ("LocalEventTime", "TIMESTAMP", MINUTES.format(name="local")),
    *((name, "SMALLINT", "100") for name in ("Age", "Sex", "Income", "Interests", "Robotness")),
    ("RemoteIP", "INTEGER", "h(i, 'remote') % 4294967296 - 2147483648"),
    *((name, "INTEGER", "9999") for name in ("WindowName", "OpenerName")),
    ("HistoryLength", "SMALLINT", "30"),
    ("BrowserLanguage", "VARCHAR", pick(["ru", "en", "de"], "h(i, 'lang')")),
    ("BrowserCountry", "VARCHAR", pick(["RU", "US", "DE", ""], "h(i, 'country')")),
    ("SocialNetwork", "VARCHAR", "''"),
    ("SocialAction", "VARCHAR", "''"),
    ("HTTPError", "SMALLINT", "2"),
    *((name, "INTEGER", "5000") for name in ("SendTiming", "DNSTiming", "ConnectTiming", "ResponseStartTiming", "ResponseEndTiming", "FetchTiming")),
    ("SocialSourceNetworkID", "SMALLINT", "9"),
    ("SocialSourcePage", "VARCHAR", "''"),
    ("ParamPrice", "BIGINT", "100000"),
    ("ParamOrderID", "VARCHAR", "''"),
    ("ParamCurrency", "VARCHAR", pick(["NH\\x1C", "EUR"], "h(i, 'currency')")),
    ("ParamCurrencyID", "SMALLINT", "9"),
    *((name, "VARCHAR", "''") for name in ("OpenstatServiceName", "OpenstatCampaignID", "OpenstatAdID", "OpenstatSourceID")),
    *((name, "VARCHAR", "if(i % 50 = 0, 'utm' || h(i, 'utm') % 5, '')") for name in ("UTMSource", "UTMMedium", "UTMCampaign", "UTMContent", "UTMTerm", "FromTag")),
    ("HasGCLID", "SMALLINT", "2"),
    ("RefererHash", "BIGINT", "if(i % 4 = 0, 3594120000172545465, h(i, 'refhash') * 977)"),
    ("URLHash", "BIGINT", "if(i // 8 % 2 = 0, 2868770270353813622, h(i, 'urlhash') * 977)"),
    ("CLID", "INTEGER", "9"),
]  # fmt: skip


def write(directory: Path, scale: float) -> None:
    """Scale 1 has 10,000,000 rows."""
    assert len(COLUMNS) == 105, len(COLUMNS)
    columns = []
    for name, ty, value in COLUMNS:
        number = SMALL.format(name=name, values=value) if value.isdigit() else value
        columns.append(f"({number})::{ty} AS {name}")
    rows = max(int(10_000_000 * scale), 10_000)
    write_marts(directory, {"hits": f"SELECT {', '.join(columns)} FROM range({rows}) t(i)"})
