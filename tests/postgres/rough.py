"""What martd makes of clients that are unusual, wrong or hostile: rough.py PORT

Every check is run, and what fails is told at the end.
"""

import asyncio
import datetime
import random
import socket
import struct
import sys
import traceback

import asyncpg
import psycopg

PORT = int(sys.argv[1])
DSN = f"host=127.0.0.1 port={PORT} user=anyone dbname=martd"
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def message(kind, body=b""):
    return kind + struct.pack(">i", len(body) + 4) + body


def startup(version=0x30000, **more):
    parameters = {"user": "anyone", **more}
    pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    body = struct.pack(">i", version) + pairs + b"\0"
    return struct.pack(">i", len(body) + 4) + body


class Raw:
    """The protocol by its bytes."""

    def __init__(self, version=0x30000, **more):
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=60)
        self.send(startup(version, **more))
        self.hello = self.answer()

    def send(self, *messages):
        self.socket.sendall(b"".join(messages))

    def exactly(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            assert more, "the connection ended"
            data += more
        return data

    def answer(self):
        """The messages up to the next that says that martd is ready."""
        messages = []
        while True:
            head = self.exactly(5)
            body = self.exactly(struct.unpack(">i", head[1:])[0] - 4)
            messages.append((head[:1], body))
            if head[:1] == b"Z":
                return messages

    def ask(self, sql):
        data = sql if isinstance(sql, bytes) else sql.encode()
        self.send(message(b"Q", data + b"\0"))
        return self.answer()

    def tags(self, sql):
        """How each statement ended: its tag or its SQLSTATE, and at the end the state of the transaction."""
        return outcome(self.ask(sql))

    def bound(self, sql, values, *, types=(), formats=(), results=(), describe=False):
        """Prepares, binds and runs a statement."""
        parse = b"\0" + sql.encode() + b"\0" + struct.pack(">h", len(types)) + b"".join(struct.pack(">I", oid) for oid in types)
        bind = b"\0\0" + struct.pack(f">h{len(formats)}h", len(formats), *formats) + struct.pack(">h", len(values))
        for value in values:
            bind += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
        bind += struct.pack(f">h{len(results)}h", len(results), *results)
        self.send(message(b"P", parse), message(b"D", b"S\0") if describe else b"", message(b"B", bind))
        self.send(message(b"E", b"\0\0\0\0\0"), message(b"S"))
        return self.answer()


def outcome(answer):
    told = []
    for kind, body in answer:
        if kind == b"C":
            told.append(body[:-1].decode())
        elif kind == b"E":
            told.append({field[:1]: field[1:] for field in body.split(b"\0") if field}[b"C"].decode())
        elif kind == b"Z":
            told.append(body.decode())
    return told


def values(answer):
    """The first value of each row."""
    rows = []
    for kind, body in answer:
        if kind == b"D":
            (length,) = struct.unpack(">i", body[2:6])
            rows.append(None if length < 0 else body[6 : 6 + length].decode())
    return rows


def same(is_, expected, what=""):
    assert is_ == expected, f"{what} {is_!r}, not {expected!r}"


@check
def lists_are_lists_whether_described_or_not():
    raw = Raw()
    names = "SELECT name FROM (VALUES ('ada'), ('bob'), ('eve')) t(name) WHERE name = any($1::text[]) ORDER BY 1"
    for text, expected in [("{ada,bob}", ["ada", "bob"]), ("{}", []), ("{NULL}", []), ("{NULL,NULL}", []), ('{"eve"}', ["eve"])]:
        for oid in (0, 705, 1009, 25):
            for describe in (True, False):
                answer = raw.bound(names, [text.encode()], types=[oid], describe=describe)
                same(values(answer), expected, (text, oid, describe, outcome(answer)))
    numbers = "SELECT id FROM range(5) t(id) WHERE id = any($1::int[]) ORDER BY 1"
    for describe in (True, False):
        for oid in (0, 705):
            answer = raw.bound(numbers, [b"{1,3}"], types=[oid], describe=describe)
            same(values(answer), ["1", "3"], (describe, outcome(answer)))
    with psycopg.connect(DSN, autocommit=True) as connection:
        for given, expected in [(["ada", "bob"], ["ada", "bob"]), ([], []), ([None], []), ([None, None], [])]:
            for cast in ("::text[]", "::varchar[]"):
                rows = connection.execute(names.replace("$1::text[]", "%s" + cast), [given]).fetchall()
                same([row[0] for row in rows], expected, (given, cast))
        for given, expected in [([1, 3], [1, 3]), ([], []), ([None], [])]:
            rows = connection.execute(numbers.replace("$1", "%s"), [given]).fetchall()
            same([row[0] for row in rows], expected, given)


@check
def lists_of_lists_are_read():
    raw = Raw()
    for oid in (0, 1007):
        for describe in (True, False):
            same(values(raw.bound("SELECT $1::json::varchar", [b'{"a":{"b":1}}'], types=[0], describe=describe)), ['{"a":{"b":1}}'])
            answer = raw.bound("SELECT ($1::int[][])[2][1]", [b"{{1,2},{3,NULL}}"], types=[oid], describe=describe)
            same(values(answer), ["3"], (oid, describe, outcome(answer)))


@check
def no_date_ends_the_connection():
    raw = Raw()

    def date(days):
        return raw.bound("SELECT $1::date::varchar", [struct.pack(">i", days)], types=[1082], formats=[1])

    def moment(oid, micros):
        return raw.bound("SELECT $1::timestamp::varchar", [struct.pack(">q", micros)], types=[oid], formats=[1])

    last = 2**31 - 2 - 10_957
    for days, expected in [
        (0, "2000-01-01"), (-1, "1999-12-31"), (2_921_939, "9999-12-31"), (2_921_940, "10000-01-01"),
        (7_304_484, "21998-12-31"), (7_304_485, "21999-01-01"), (-730_119, "0001-01-01"), (-730_120, "0001-12-31 (BC)"),
        (last, "5881580-07-10"), (-(2**31) + 1, "5877612-06-23 (BC)"), (2**31 - 1, "infinity"), (-(2**31), "-infinity"),
    ]:
        same(values(date(days)), [expected], days)
        if "infinity" not in expected:
            same(values(raw.ask(f"SELECT (DATE '2000-01-01' + ({days})::INTEGER)::varchar")), [expected], days)
    for days in (last + 1, 2**31 - 2):
        same(outcome(date(days))[0], "22008", days)
    same(values(moment(1114, -1)), ["1999-12-31 23:59:59.999999"])
    same(values(moment(1114, 252_455_616_000_000_000)), ["10000-01-01 00:00:00"])
    same(values(moment(1114, 2**63 - 1)), ["infinity"])
    same(outcome(moment(1114, 2**63 - 2))[0], "22008")
    generator = random.Random(20)
    for _ in range(300):
        for answer in (
            date(generator.randint(-(2**31), 2**31 - 1)),
            moment(1114, generator.randint(-(2**63), 2**63 - 1)),
            moment(1184, generator.randint(-(2**63), 2**63 - 1)),
        ):
            assert values(answer) or outcome(answer)[0] == "22008", outcome(answer)


def pieces():
    """Messages of which something is missing, is not what it says, or is too much."""
    whole = [
        (b"Q", b"SELECT 1\0"), (b"P", b"name\0SELECT $1\0\0\1\0\0\0\x17"), (b"D", b"Sname\0"), (b"C", b"Pname\0"),
        (b"B", b"\0\0\0\1\0\1\0\1\0\0\0\4\0\0\0\7\0\1\0\0"), (b"E", b"\0\0\0\0\0"), (b"p", b"secret\0"), (b"f", b"no\0"),
    ]
    generator = random.Random(21)
    for kind, body in whole:
        for length in range(len(body)):
            yield message(kind, body[:length])
        yield message(kind, body + b"\1")
    yield message(b"P", b"ab")
    yield message(b"B", b"\0\0\0\x63\0\0\0\0")
    yield message(b"B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0")
    for _ in range(300):
        kind, body = generator.choice(whole)
        body = bytearray(body[: generator.randint(0, len(body))])
        for _ in range(generator.randint(0, 3)):
            if body:
                body[generator.randrange(len(body))] = generator.choice([0, 1, 127, 128, 255])
        yield message(kind, bytes(body))


def told(data):
    """What comes until martd ends the connection."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while more := connection.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
        return answer


@check
def broken_messages_are_told():
    for piece in pieces():
        told(piece)
        told(startup() + piece)
    generator = random.Random(22)
    whole = startup(0x30002, application_name="x", **{"_pq_.y": "1"})
    for length in range(4, len(whole)):
        told(whole[:length])
        told(struct.pack(">i", length) + whole[4:length])
    for code in (80877102, 80877103, 80877104, 0x20000, 0x30000):
        for length in (0, 1, 4, 7, 8, 12, 260):
            body = struct.pack(">i", code) + generator.randbytes(length)
            told(struct.pack(">i", len(body) + 4) + body)
    for piece in (b"P\0\0\0\6ab", message(b"B", b"\0\0\0\x63\0\0\0\0"), message(b"Q", b"SELECT 1"), message(b"Q", b"SELECT 1\0; SELECT 2\0")):
        answer = told(startup() + piece)
        assert b"C08P01" in answer and b"SELECT" not in answer, (piece, answer)


@check
def what_is_too_long_or_has_another_format_is_refused():
    raw = Raw()
    for oid, size in [(16, 1), (21, 2), (23, 4), (26, 4), (700, 4), (20, 8), (701, 8), (1082, 4), (1083, 8), (1114, 8), (1184, 8), (1186, 16), (1266, 12), (2950, 16)]:
        for length in (0, size - 1, size + 1, size + 4, 2 * size + 1):
            answer = raw.bound("SELECT $1", [b"\0" * length], types=[oid], formats=[1])
            same(outcome(answer), ["22P03", "I"], (oid, length))
    number = struct.pack(">hhHhh", 1, 0, 0, 0, 7)
    same(values(raw.bound("SELECT $1", [number], types=[1700], formats=[1])), ["7"])
    same(outcome(raw.bound("SELECT $1", [number + b"\0"], types=[1700], formats=[1]))[0], "22P03")
    list_ = struct.pack(">iiIiiii", 1, 0, 23, 1, 1, 4, 7)
    same(values(raw.bound("SELECT $1", [list_], types=[1007], formats=[1])), ["{7}"])
    same(outcome(raw.bound("SELECT $1", [list_ + b"\0"], types=[1007], formats=[1]))[0], "22P03")
    same(outcome(raw.bound("SELECT $1::int, $2::int", [b"1", b"2"], formats=[2])), ["08P01", "I"])
    same(outcome(raw.bound("SELECT $1::int, $2::int", [b"1", b"2"], formats=[-1, 0])), ["08P01", "I"])
    same(outcome(raw.bound("SELECT $1::int, $2::int", [b"1", b"2"], formats=[0, 0, 0])), ["08P01", "I"])
    same(outcome(raw.bound("SELECT $1::int, $2::int", [b"1", b"2"], results=[7])), ["08P01", "I"])
    same(outcome(raw.bound("SELECT $1::int, $2::int", [b"1", b"2"], results=[0, 0, 0])), ["08P01", "I"])
    same(outcome(raw.bound("SELECT $1::int, $2::int", [b"1", b"2"], formats=[0, 0], results=[0, 0])), ["SELECT 1", "I"])


@check
def what_is_not_utf8_is_refused():
    raw = Raw()
    same(raw.tags(b"SELECT '\xff'"), ["22021", "I"])
    same(values(raw.ask("SELECT '\ufffd'")), ["\ufffd"])
    raw.send(message(b"P", b"\0SELECT '\xff'\0\0\0"), message(b"E", b"\0\0\0\0\0"), message(b"S"))
    same(outcome(raw.answer()), ["22021", "I"])
    same(raw.tags("BEGIN; SELECT 1"), ["BEGIN", "SELECT 1", "T"])
    same(raw.tags(b"SELECT '\xff'"), ["22021", "E"])


@check
def savepoints_recover_a_transaction():
    raw = Raw()
    for sql in ("SAVEPOINT a", "RELEASE a", "ROLLBACK TO a"):
        same(raw.tags(sql), ["25P01", "I"], sql)
    same(raw.tags("BEGIN; SAVEPOINT a; SELECT nothing"), ["BEGIN", "SAVEPOINT", "42703", "E"])
    same(raw.tags("SAVEPOINT b"), ["25P02", "E"])
    same(raw.tags("ROLLBACK TO b"), ["3B001", "E"])
    same(raw.tags("ROLLBACK TO a"), ["ROLLBACK", "T"])
    same(raw.tags("SELECT 1; SAVEPOINT B; DECLARE c CURSOR FOR SELECT 1"), ["SELECT 1", "SAVEPOINT", "DECLARE CURSOR", "T"])
    same(raw.tags("ROLLBACK TO SAVEPOINT b; DECLARE c CURSOR FOR SELECT 2"), ["ROLLBACK", "DECLARE CURSOR", "T"])
    same(raw.tags("RELEASE SAVEPOINT a; FETCH c"), ["RELEASE", "FETCH 1", "T"])
    same(raw.tags("RELEASE b"), ["3B001", "E"])
    same(raw.tags("COMMIT"), ["ROLLBACK", "I"])
    same(raw.tags("BEGIN; SAVEPOINT a; COMMIT; BEGIN"), ["BEGIN", "SAVEPOINT", "COMMIT", "BEGIN", "T"])
    same(raw.tags("ROLLBACK TO a"), ["3B001", "E"])
    with psycopg.connect(DSN) as connection, connection.transaction():
        try:
            with connection.transaction():
                connection.execute("SELECT nothing")
        except psycopg.errors.UndefinedColumn:
            pass
        same(connection.execute("SELECT 1").fetchone(), (1,))

    async def nested():
        connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="anyone", database="martd")
        async with connection.transaction():
            try:
                async with connection.transaction():
                    await connection.fetch("SELECT nothing")
            except asyncpg.UndefinedColumnError:
                pass
            same(await connection.fetchval("SELECT 1"), 1)
        await connection.close()

    asyncio.run(nested())


@check
def newer_protocols_are_negotiated():
    for version in (0x30002, 0x3270F):
        raw = Raw(version, **{"_pq_.test": "1"})
        same(raw.hello[0], (b"v", struct.pack(">ii", 0x30000, 1) + b"_pq_.test\0"), hex(version))
        same(values(raw.ask("SELECT 1")), ["1"])
    same(Raw(0x30002).hello[0], (b"v", struct.pack(">ii", 0x30000, 0)))
    same(Raw(0x30000).hello[0][0], b"R")


@check
def discard_does_what_it_says():
    raw = Raw()
    for what in ("PLANS", "SEQUENCES", "TEMP"):
        same(raw.tags(f"DISCARD {what}"), [f"DISCARD {what}", "I"])
    raw.send(message(b"P", b"kept\0SELECT 1\0\0\0"), message(b"S"))
    same(outcome(raw.answer()), ["I"])
    same(raw.tags("BEGIN"), ["BEGIN", "T"])
    same(raw.tags("DISCARD ALL"), ["25001", "E"])
    same(raw.tags("ROLLBACK"), ["ROLLBACK", "I"])
    raw.send(message(b"D", b"Skept\0"), message(b"S"))
    same(outcome(raw.answer()), ["I"])
    same(raw.tags("DISCARD ALL"), ["DISCARD ALL", "I"])
    raw.send(message(b"D", b"Skept\0"), message(b"S"))
    same(outcome(raw.answer()), ["26000", "I"])


@check
def parameters_without_a_type_are_texts_or_named():
    raw = Raw()

    def described(sql):
        raw.send(message(b"P", b"\0" + sql.encode() + b"\0\0\0"), message(b"D", b"S\0"), message(b"S"))
        answer = raw.answer()
        return [body for kind, body in answer if kind == b"t"], outcome(answer), answer

    for sql in ("SELECT string_agg(name, $1) FROM mart.big", "SELECT * FROM range($1)", "SELECT $2", "SELECT $1", "SELECT coalesce($1, $2)", "SELECT string_agg(name, $1::varchar) FROM mart.big"):
        types, told, answer = described(sql)
        if told[0] == "42P18":
            assert any(b"could not determine data type of parameter $1" in body for _, body in answer), answer
        else:
            same(told, ["I"], sql)
            same(set(types[0][2:]), {0, 25}, sql)
    for sql in ("SELECT $1", "SELECT string_agg(name, $1) FROM mart.big", "SELECT string_agg(name, $1::varchar) FROM mart.big"):
        same(described(sql)[1], ["I"], sql)
    same(values(raw.bound("SELECT string_agg(name, $1) FROM mart.big WHERE id < 2", [b","], describe=True)), ["n0,n1"])
    same(described("SELECT * FROM range($1)")[1], ["42P18", "I"])
    same(described("SELECT nothing")[1], ["42703", "I"])


@check
def cursors_go_forward_alone():
    raw = Raw()
    same(raw.tags("BEGIN; DECLARE c CURSOR FOR SELECT * FROM range(10)"), ["BEGIN", "DECLARE CURSOR", "T"])
    for sql, expected in [
        ("FETCH c", ["0"]), ("FETCH 2 c", ["1", "2"]), ("FETCH NEXT IN c", ["3"]), ("FETCH FORWARD 1 FROM c", ["4"]),
        ("MOVE 2 IN c", []), ("MOVE c", []), ("FETCH ALL c", ["8", "9"]), ("FETCH ALL FROM c", []),
    ]:
        answer = raw.ask(sql)
        same(values(answer), expected, sql)
        count = {"MOVE 2 IN c": 2, "MOVE c": 1}.get(sql, len(expected))
        same(outcome(answer), [f"{sql.split()[0]} {count}", "T"], sql)
    for sql, state in [
        ("FETCH PRIOR c", "0A000"), ("FETCH BACKWARD 1 FROM c", "0A000"), ("FETCH -1 c", "0A000"), ("FETCH FIRST FROM c", "0A000"),
        ("FETCH ABSOLUTE 2 c", "0A000"), ("MOVE BACKWARD ALL IN c", "0A000"),
        ("DECLARE d BINARY CURSOR FOR SELECT 1", "0A000"), ("DECLARE c CURSOR FOR SELECT 1", "42P03"), ("FETCH d", "34000"),
    ]:
        same(raw.tags(f"SAVEPOINT a; {sql}"), ["SAVEPOINT", state, "E"], sql)
        same(raw.tags("ROLLBACK TO a"), ["ROLLBACK", "T"])
    same(raw.tags("DECLARE d CURSOR WITHOUT HOLD FOR SELECT 1; FETCH d"), ["DECLARE CURSOR", "FETCH 1", "T"])
    same(raw.tags("DECLARE hold CURSOR FOR SELECT 1"), ["DECLARE CURSOR", "T"])
    same(raw.tags("COMMIT"), ["COMMIT", "I"])
    same(raw.tags("DECLARE e CURSOR WITH HOLD FOR SELECT 1"), ["0A000", "I"])
    same(raw.tags("DECLARE e CURSOR FOR SELECT 1"), ["25P01", "I"])
    same(raw.tags("SET statement_timeout = '5s'"), ["SET", "I"])
    same(values(raw.ask("SHOW statement_timeout")), ["60000ms"], "what holds")


@check
def times_with_a_zone_and_bits_are_parameters():
    raw = Raw()
    zone = struct.pack(">qi", 3_723_000_001, -5400)
    equal = "SELECT $1 = '01:02:03.000001+01:30'::timetz"
    same(values(raw.bound(equal, [zone], types=[1266], formats=[1])), ["t"])

    async def ask():
        connection = await asyncpg.connect(host="127.0.0.1", port=PORT, user="anyone", database="martd")
        zone = datetime.timezone(datetime.timedelta(hours=-2))
        for cast, value in [
            ("timetz", datetime.time(1, 2, 3, 4, tzinfo=zone)), ("bit", asyncpg.BitString("10110")), ("bit", asyncpg.BitString("1011001110")),
            ("timetz[]", [datetime.time(1, 2, tzinfo=zone)]),
        ]:
            same(await connection.fetchval(f"SELECT $1::{cast}", value), value, cast)
        await connection.close()

    asyncio.run(ask())


failed = 0
for function in CHECKS:
    try:
        function()
    except Exception:  # noqa: BLE001, whatever it is
        failed += 1
        print(f"{function.__name__}:\n{traceback.format_exc(limit=-2)}", file=sys.stderr)
sys.exit(f"{failed} of {len(CHECKS)} failed" if failed else 0)
