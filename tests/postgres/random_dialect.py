"""Statements of PostgreSQL's dialect at random: martd answers each as PostgreSQL does, or refuses it."""

DATE_PATTERNS = """
    YYYY YYY YY Y IYYY IYY IY I MM DD DDD D HH24 HH12 HH MI SS MS US Month MONTH month Mon MON mon Day DAY day Dy DY dy
    AM PM am pm Q WW W IW ID FF3 FF6 CC J RM TZ OF
""".split()
BETWEEN = ["-", "/", ":", " ", ".", "", "", "%", "_", "'", '"T"', '"of y"', "FM", "fm", ",", "01", "é"]
INPUTS = [
    "2026-01-04", "2026-1-4", "20260104", "04.01.2026", "2026-01-04 03:04:05", "2026-01-04 03:04:05.5", "4 Jan 2026",
    "2026-01-04T03:04:05", "04-January-2026", "2026-02-30", "2026-13-01", "99-1-1", " 2026-01-04", "2026-01-04 12:04 AM",
    "2026-01-04 03:04 pm", "2026/01/04", "0099-01-04", "2026-366", "2026-060",
]  # fmt: skip
INPUT_FORMATS = [
    "YYYY-MM-DD", "YYYYMMDD", "DD.MM.YYYY", "YYYY-MM-DD HH24:MI:SS", "YYYY-MM-DD HH24:MI:SS.US", "DD Mon YYYY",
    "YYYY-MM-DD HH24:MI:SS.MS", 'YYYY-MM-DD"T"HH24:MI:SS', "DD-Month-YYYY", "YYYY-MM-DD HH12:MI AM", "YYYY-DDD",
    "YYYY-MM-DD HH:MI PM", "YYYY/MM/DD", "yyyy-mm-dd", "FMYYYY-FMMM-FMDD", "YYYY MM DD", "MM/DD/YYYY",
]  # fmt: skip


class Statements:
    def __init__(self, random):
        self.random, self.pick = random, random.choice

    def literal(self, text):
        return "'" + text.replace("'", "''") + "'"

    def many(self, items, least, most):
        return "".join(self.pick(items) for _ in range(self.random.randint(least, most)))

    def text(self):
        return self.literal(self.many("aabbc01 .-_é\nX", 0, 9))

    def moment(self):
        number = self.random.randint
        day = f"{self.pick([number(1, 9999), number(1900, 2100)]):04}-{number(1, 12):02}-{number(1, 28):02}"
        return f"TIMESTAMP '{day} {number(0, 23):02}:{number(0, 59):02}:{number(0, 59):02}.{number(0, 999999):06}'"

    def number(self):
        random = self.random
        small = self.pick([0, 0.5, -0.5, 0.05, 0.005, -0.004, 2.5, 0.125, 99.995])
        large = random.randint(-(10 ** random.randint(1, 9)), 10 ** random.randint(1, 9))
        value = self.pick([small, large, random.uniform(-1, 1), round(random.uniform(-1000, 1000), random.randint(0, 5))])
        return f"({value:.6f})::" + self.pick(["numeric(18,6)", "double precision", "numeric(18,2)", "int", "bigint"])

    def to_char_of_date(self):
        pattern = [self.pick(BETWEEN) + self.pick([self.pick(DATE_PATTERNS)] * 6 + ["yyyy"]) for _ in range(self.random.randint(1, 5))]
        return f"to_char({self.moment()}, {self.literal(''.join(pattern) + self.pick(['', '-', 'th']))})"

    def to_char_of_number(self):
        digits = self.many("9990", 0, 9)
        if self.pick([True, False]):
            digits = f"{digits[::-1]:s}"
            digits = ",".join(digits[at : at + 3] for at in range(0, len(digits), 3))[::-1]
        fraction = self.pick(["", "", "." + self.many("900", 0, 4)])
        pattern = self.pick(["", "FM"]) + digits + fraction + self.pick([""] * 9 + ["MI", "S", "%", "D"])
        return f"to_char({self.number()}, {self.literal(pattern)})"

    def expression(self):
        parts = ["a", "b", "c", "[0-9]", "[a-c]", "[^a]", ".", " ", "-", "\\d", "\\.", "1", "é", "(a)", "(b1)", "(?:b1)", "(ab|c)", "X"]
        pieces = [self.pick(parts) + self.pick(["", "", "", "*", "+", "?", "{2}"]) for _ in range(self.random.randint(1, 4))]
        return self.literal(self.pick(["", "^"]) + "".join(pieces) + self.pick(["", "$"]))

    def substring(self):
        return f"substring({self.text()} FROM {self.expression()})"

    def matches(self):
        return f"{self.text()} {self.pick(['~', '~*', '!~', '!~*'])} {self.expression()}"

    def similar(self):
        pattern = self.many(["a", "b", "%", "_", "c", "1", ".", "(a|b)", "a*", "b+", "-", "X", "|", "^", "$"], 1, 5)
        return f"{self.text()} {self.pick(['', 'NOT '])}SIMILAR TO {self.literal(pattern)}"

    def like_any(self):
        how = f"{self.pick(['', 'NOT '])}{self.pick(['LIKE', 'ILIKE'])} {self.pick(['ANY', 'ALL'])}"
        return f"{self.text()} {how} (ARRAY[{self.text()}, {self.pick(['NULL', self.literal('%a%')])}])"

    def to_date(self):
        function = self.pick(["to_date", "to_timestamp"])
        return f"{function}({self.literal(self.pick(INPUTS))}, {self.literal(self.pick(INPUT_FORMATS))})"

    def others(self):
        zone, unit = self.pick(["America/New_York", "Asia/Tokyo", "UTC"]), self.pick(["day", "month", "week", "hour"])
        return self.pick([
            f"initcap({self.text()})",
            f"age({self.moment()}, {self.moment()})",
            f"date_trunc('{unit}', {self.moment()} AT TIME ZONE 'UTC', '{zone}')",
            f"date_bin('{self.pick([5, 7, 15])} minutes', {self.moment()}, TIMESTAMP '2001-01-01')",
            f"lpad({self.text()}, {self.random.randint(0, 6)}) || rpad({self.text()}, {self.random.randint(0, 6)})",
            f"to_hex({self.random.randint(0, 99999)}) || btrim({self.text()}, 'ab')",
        ])  # fmt: skip

    def one(self):
        ways = [self.to_char_of_date, self.to_char_of_number, self.substring, self.matches, self.similar]
        return f"SELECT {self.pick([*ways, self.like_any, self.to_date, self.others])()} AS x"
