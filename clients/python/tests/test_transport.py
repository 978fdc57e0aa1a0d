"""What can happen between client and martd, with a server that does it on purpose."""

import json
import threading
import time

import pyarrow as pa
import pytest
from fake import Cut, Fake, stream, whole
from martd_client import (
    AnswerCut,
    AnswerTooLarge,
    Client,
    MartdError,
    NotReady,
    QueryError,
    QueryTimeout,
    Unavailable,
    Unreachable,
)

ROWS = [{"a": n} for n in range(1000)]


def arrow(rows=ROWS, batches=4):
    schema = pa.schema([pa.field("a", pa.int64(), metadata={"duckdb.type": "BIGINT"})])
    sink = pa.BufferOutputStream()
    size = max(1, len(rows) // batches)
    with pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(rows), size):
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start : start + size], schema))
    return sink.getvalue().to_pybytes()


ARROW = arrow()
WHOLE = whole(ARROW, "Martd-Truncated: false")
STREAM = stream(ARROW[:3000], ARROW[3000:5000], ARROW[5000:])


def problem(status, slug, *headers, **members):
    document = {"type": f"urn:martd:problem:{slug}", "detail": f"about {slug}", "request_id": "abc", **members}
    return whole(json.dumps(document).encode(), "Content-Type: application/problem+json", *headers, status=status)


OVERLOADED = problem("503 Service Unavailable", "overloaded", "Retry-After: 0")


def client(server, **settings):
    return Client(server.url, **{"timeout": 20, **settings})


def test_answers_come_over_kept_connections():
    with Fake(WHOLE, STREAM, WHOLE) as server, client(server) as asked:
        for _ in range(3):
            assert asked.execute_query("SELECT 1") == ROWS
        assert server.connections == 1


def test_a_unix_socket(tmp_path):
    with Fake(WHOLE, STREAM, path=tmp_path / "martd.sock") as server, client(server) as asked:
        assert asked.execute_query("SELECT 1") == ROWS
        assert asked.execute_query("SELECT 1") == ROWS
        assert server.requests[0]["line"] == "POST /v1/query HTTP/1.1"
    with pytest.raises(Unreachable, match="none.sock"):
        Client(f"http+unix://{tmp_path}/none.sock").execute_query("SELECT 1")


def test_what_is_sent():
    with Fake(WHOLE) as server, client(server, token="s3cret", scope_param="user_id") as asked:
        with asked.consistent("f00") as view:
            view.execute_query("SELECT $n", {"n": 1, "user_id": "u-1"}, max_rows=5)
        headers = server.requests[0]["headers"]
        assert json.loads(server.requests[0]["body"]) == {
            "sql": "SELECT $n", "limit": 5, "params": {"n": 1}, "types": {"n": "INTEGER"},
        }  # fmt: skip
        assert headers["authorization"] == "bearer s3cret"
        assert headers["martd-scope"] == "user_id=u-1"
        assert headers["martd-snapshot"] == "f00"
        assert headers["accept"] == "application/vnd.apache.arrow.stream"
        assert headers["te"] == "trailers"
        assert "s3cret" not in repr(asked.settings)


def test_a_scope_may_have_any_letters():
    with Fake(WHOLE) as server, client(server) as asked:
        asked.execute_query("SELECT 1", scope="user_id=Jürgen 1/2")
        assert server.requests[0]["headers"]["martd-scope"].lower() == "user_id*=utf-8''j%c3%bcrgen%201%2f2"


@pytest.mark.parametrize("answer", [WHOLE, STREAM], ids=["with a length", "in chunks"])
def test_an_answer_cut_anywhere_is_an_error(answer):
    head = answer.index(b"\r\n\r\n") + 4
    cuts = [*range(head, len(answer), 97), *range(len(answer) - 40, len(answer))]
    for cut in cuts:
        with Fake(Cut(answer[:cut])) as server, client(server) as asked:
            with pytest.raises(AnswerCut):
                asked.execute_query("SELECT 1")


def test_an_answer_cut_in_its_head_is_an_error():
    for cut in range(0, WHOLE.index(b"\r\n\r\n")):
        with Fake(Cut(WHOLE[:cut])) as server, client(server) as asked:
            with pytest.raises(ConnectionError):
                asked.execute_query("SELECT 1")


def test_an_arrow_stream_cut_at_a_batch_is_an_error():
    """HTTP sees nothing wrong in these; pyarrow takes the second for whole."""
    for body in (ARROW[:-100], ARROW[:-8], ARROW + b"x", b"", b"nonsense"):
        for answer in (whole(body, "Martd-Truncated: false"), stream(body)):
            with Fake(answer) as server, client(server) as asked:
                with pytest.raises(AnswerCut):
                    asked.execute_query("SELECT 1")


def test_no_length_and_no_chunks_is_no_end():
    with Fake(Cut(b"HTTP/1.1 200 OK\r\nMartd-Truncated: false\r\n\r\n" + ARROW)) as server:
        with client(server) as asked, pytest.raises(AnswerCut):
            asked.execute_query("SELECT 1")


def test_rows_that_martd_left_out_are_an_error():
    short = whole(ARROW, "Martd-Truncated: true")
    with Fake(short, short, stream(ARROW, trailer="Martd-Truncated: true"), stream(ARROW, trailer="")) as server:
        with client(server) as asked:
            for _ in range(3):
                with pytest.raises(AnswerTooLarge):
                    asked.execute_query("SELECT 1")
            with pytest.raises(AnswerCut, match="did not say"):
                asked.execute_query("SELECT 1")


def test_an_answer_that_is_too_large_is_told_as_such():
    with Fake(problem(422, "answer-too-large")) as server, client(server) as asked:
        with pytest.raises(AnswerTooLarge, match="about answer-too-large"):
            asked.execute_query("SELECT 1")


@pytest.mark.parametrize("slug", ["overloaded", "legacy-locked"])
def test_what_goes_away_by_itself_is_asked_again(slug):
    busy = problem("503 Service Unavailable", slug, "Retry-After: 0")
    with Fake(busy, busy, WHOLE) as server, client(server) as asked:
        assert asked.execute_query("SELECT 1") == ROWS
        assert len(server.requests) == 3 and server.connections == 1


def test_no_data_yet_is_not_waited_for():
    nothing = problem("503 Service Unavailable", "not-ready", "Retry-After: 0")
    with Fake(nothing, WHOLE) as server, client(server) as asked:
        with pytest.raises(FileNotFoundError):
            asked.execute_query("SELECT 1")
        assert len(server.requests) == 1


def test_a_limit_that_martd_does_not_allow_is_left_out():
    refused = problem("400 Bad Request", "bad-request", detail="limit may be 5 at most (MARTD_MAX_ROWS)")
    with Fake(refused, WHOLE, refused, refused) as server, client(server) as asked:
        assert asked.execute_query("SELECT 1") == ROWS
        assert [json.loads(request["body"]).get("limit") for request in server.requests] == [10_000, None]
        with pytest.raises(QueryError, match="MARTD_MAX_ROWS"):
            asked.execute_query("SELECT 1")  # once is enough


def test_retry_after_is_heeded():
    with Fake(problem("503 Service Unavailable", "overloaded", "Retry-After: 1"), WHOLE) as server:
        start = time.monotonic()
        assert client(server).execute_query("SELECT 1") == ROWS
        assert time.monotonic() - start >= 1


def test_retries_end():
    later = problem("503 Service Unavailable", "overloaded", "Retry-After: 60")
    with Fake(later, WHOLE) as server, client(server) as asked:
        with pytest.raises(Unavailable, match="about overloaded"):
            asked.execute_query("SELECT 1")
        assert len(server.requests) == 1  # a minute is more than the patience
    with Fake(OVERLOADED, WHOLE) as server, client(server, retry=0) as asked:
        with pytest.raises(Unavailable):
            asked.execute_query("SELECT 1")


def test_without_retry_after_nothing_is_asked_again():
    with Fake(problem("503 Service Unavailable", "overloaded"), WHOLE) as server, client(server) as asked:
        with pytest.raises(Unavailable):
            asked.execute_query("SELECT 1")


@pytest.mark.parametrize(
    ("status", "slug", "kind", "builtin"),
    [
        ("400 Bad Request", "sql-error", QueryError, Exception),
        ("403 Forbidden", "scope-required", QueryError, Exception),
        ("401 Unauthorized", "unauthorized", QueryError, Exception),
        ("410 Gone", "snapshot-gone", QueryError, Exception),
        ("507 Insufficient Storage", "memory-limit", QueryError, Exception),
        ("504 Gateway Timeout", "query-timeout", QueryTimeout, TimeoutError),
        ("503 Service Unavailable", "not-ready", NotReady, FileNotFoundError),
        ("503 Service Unavailable", "legacy-locked", Unavailable, FileNotFoundError),
        ("500 Internal Server Error", "internal", MartdError, Exception),
    ],
)
def test_problems(status, slug, kind, builtin):
    with Fake(problem(status, slug, position=7)) as server, client(server) as asked:
        with pytest.raises(kind) as caught:
            asked.execute_query("SELECT 1")
    error = caught.value
    assert isinstance(error, builtin) and type(error) is kind
    assert (error.slug, error.status, error.position, error.request_id) == (slug, int(status[:3]), 7, "abc")
    assert str(error) == f"about {slug} (request abc)"


def test_an_answer_that_is_not_martds():
    with Fake(whole(b"<html>", status="502 Bad Gateway"), whole(b"<html>")) as server, client(server) as asked:
        with pytest.raises(MartdError, match="not martd that answered 502"):
            asked.execute_query("SELECT 1")
        with pytest.raises(MartdError, match="not JSON"):
            asked.freshness()


def test_nobody_there():
    with Fake() as server:
        url = server.url
    with Client(url) as asked:
        with pytest.raises(Unreachable) as caught:
            asked.execute_query("SELECT 1")
        assert isinstance(caught.value, ConnectionError) and isinstance(caught.value, FileNotFoundError)
        assert asked.check_connection() is False and asked.last_refresh_time() is None


def test_a_wrong_token_gives_no_connection_and_no_time():
    with Fake(*[problem("401 Unauthorized", "unauthorized")] * 3) as server, client(server) as asked:
        assert asked.check_connection() is False and asked.last_refresh_time() is None
        with pytest.raises(QueryError, match="about unauthorized"):
            asked.freshness()


def test_a_server_that_says_nothing():
    with Fake(threading.Event()) as server, client(server, timeout=0.3) as asked:
        with pytest.raises(QueryTimeout) as caught:
            asked.execute_query("SELECT 1")
        assert isinstance(caught.value, TimeoutError)


def test_a_server_that_stops_in_the_middle():
    half = STREAM[: len(STREAM) // 2]
    with Fake(half) as server, client(server, timeout=0.3) as asked:
        with pytest.raises(QueryTimeout):
            asked.execute_query("SELECT 1")


def test_a_kept_connection_that_was_closed_is_replaced():
    with Fake(WHOLE, Cut(b""), WHOLE, Cut(WHOLE), WHOLE) as server, client(server) as asked:
        assert asked.execute_query("SELECT 1") == ROWS
        assert asked.execute_query("SELECT 1") == ROWS  # the second is cut before it begins
        assert asked.execute_query("SELECT 1") == ROWS  # and closed after it
        assert asked.execute_query("SELECT 1") == ROWS


def test_a_closed_new_connection_is_not_asked_again():
    with Fake(Cut(b""), WHOLE) as server, client(server) as asked:
        with pytest.raises(Unreachable):
            asked.execute_query("SELECT 1")


def test_threads_share_a_client():
    count = 16
    with Fake(*[STREAM] * count * 10) as server, client(server) as asked:
        wrong = []

        def ask():
            wrong.extend(1 for _ in range(10) if asked.execute_query("SELECT 1") != ROWS)

        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and len(server.requests) == count * 10
        assert server.connections <= count


def test_a_cut_export_leaves_no_file(tmp_path):
    target = tmp_path / "rows.csv"
    target.write_text("old")
    csv = stream(b"a\n1\n", b"2\n")
    with Fake(Cut(csv[:-6]), stream(b"a\n1\n", trailer="Martd-Truncated: true"), csv) as server, client(server) as asked:
        with pytest.raises(AnswerCut):
            asked.export("SELECT 1", target)
        with pytest.raises(AnswerTooLarge):
            asked.export("SELECT 1", target)
        assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
        asked.export("SELECT 1", target)
        assert target.read_text() == "a\n1\n2\n"
