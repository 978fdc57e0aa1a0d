"""TPC-H's eight tables, with its value ranges and those correlations that its queries look for."""

from __future__ import annotations

from pathlib import Path

from data.write import pick, write_marts

NATIONS = {
    "ALGERIA": 0, "ARGENTINA": 1, "BRAZIL": 1, "CANADA": 1, "EGYPT": 4, "ETHIOPIA": 0, "FRANCE": 3,
    "GERMANY": 3, "INDIA": 2, "INDONESIA": 2, "IRAN": 4, "IRAQ": 4, "JAPAN": 2, "JORDAN": 4, "KENYA": 0,
    "MOROCCO": 0, "MOZAMBIQUE": 0, "PERU": 1, "CHINA": 2, "ROMANIA": 3, "SAUDI ARABIA": 4, "VIETNAM": 2,
    "RUSSIA": 3, "UNITED KINGDOM": 3, "UNITED STATES": 1,
}  # fmt: skip
REGIONS = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"]
COLOURS = ["almond", "azure", "blue", "chocolate", "forest", "green", "ivory", "lemon", "navy", "olive"]
WORDS = ["quick", "special", "final", "requests", "deposits", "packages", "Customer", "Complaints", "sleep"]


def comment(key: str, what: str) -> str:
    words = (pick(WORDS, f"h({key}, '{what}{n}')") for n in range(4))
    return " || ' ' || ".join(words)


def phone(key: str, nation: str) -> str:
    return (
        f"(10 + {nation})::VARCHAR || '-' || (100 + h({key}, 'p1') % 900) || '-'"
        f" || (100 + h({key}, 'p2') % 900) || '-' || (1000 + h({key}, 'p3') % 9000)"
    )


def write(directory: Path, scale: float) -> None:
    """Scale 1 has 6,000,000 lines."""
    customers, suppliers = max(int(150_000 * scale), 150), max(int(10_000 * scale), 50)
    parts, orders = max(int(200_000 * scale), 400), max(int(1_500_000 * scale), 1_500)
    nations = ", ".join(f"({n}, '{name}', {region})" for n, (name, region) in enumerate(NATIONS.items()))
    regions = ", ".join(f"({n}, '{name}')" for n, name in enumerate(REGIONS))
    types = [
        pick(["STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"], "h(i, 't1')"),
        pick(["ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"], "h(i, 't2')"),
        pick(["TIN", "NICKEL", "BRASS", "STEEL", "COPPER"], "h(i, 't3')"),
    ]
    sizes = pick(["SM", "LG", "MED", "JUMBO", "WRAP"], "h(i, 'c1')")
    boxes = pick(["CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM"], "h(i, 'c2')")
    modes = ["REG AIR", "AIR", "AIR REG", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]
    instructions = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"]
    priorities = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"]
    segments = ["AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD"]
    # The supplier of a part is one of four.
    supplier = f"1 + ((p + (w * ({suppliers} // 4 + 1))) % {suppliers})"
    write_marts(
        directory,
        {
            "region": f"SELECT k::INT AS r_regionkey, name AS r_name, {comment('k', 'r')} AS r_comment"
            f" FROM (VALUES {regions}) v(k, name)",
            "nation": "SELECT k::INT AS n_nationkey, name AS n_name, region::INT AS n_regionkey,"
            f" {comment('k', 'n')} AS n_comment FROM (VALUES {nations}) v(k, name, region)",
            "supplier": f"""
                SELECT i AS s_suppkey, printf('Supplier#%09d', i) AS s_name, md5(i::VARCHAR)[:20] AS s_address,
                    nation::INT AS s_nationkey, {phone('i', 'nation')} AS s_phone,
                    (h(i, 'sb') % 1099999 / 100.0 - 999.99)::DECIMAL(15, 2) AS s_acctbal, {comment('i', 's')} AS s_comment
                FROM (SELECT i, (i * 7) % 25 AS nation FROM range(1, {suppliers + 1}) t(i))""",
            "customer": f"""
                SELECT i AS c_custkey, printf('Customer#%09d', i) AS c_name, md5('c' || i)[:20] AS c_address,
                    nation::INT AS c_nationkey, {phone('i', 'nation')} AS c_phone,
                    (h(i, 'cb') % 1099999 / 100.0 - 999.99)::DECIMAL(15, 2) AS c_acctbal,
                    {pick(segments, "h(i, 'seg')")} AS c_mktsegment, {comment('i', 'c')} AS c_comment
                FROM (SELECT i, h(i, 'cn') % 25 AS nation FROM range(1, {customers + 1}) t(i))""",
            "part": f"""
                SELECT i AS p_partkey, {pick(COLOURS, "h(i, 'n1')")} || ' ' || {pick(COLOURS, "h(i, 'n2')")} AS p_name,
                    'Manufacturer#' || m AS p_mfgr, 'Brand#' || m || (1 + h(i, 'b') % 5) AS p_brand,
                    {" || ' ' || ".join(types)} AS p_type, (1 + h(i, 's') % 50)::INT AS p_size,
                    {sizes} || ' ' || {boxes} AS p_container,
                    (900 + i % 200 + i % 1000 / 10.0)::DECIMAL(15, 2) AS p_retailprice, {comment('i', 'p')} AS p_comment
                FROM (SELECT i, 1 + h(i, 'm') % 5 AS m FROM range(1, {parts + 1}) t(i))""",
            "partsupp": f"""
                SELECT p AS ps_partkey, {supplier} AS ps_suppkey, (1 + h((p, w), 'q') % 9999)::INT AS ps_availqty,
                    (1 + h((p, w), 'c') % 99900 / 100.0)::DECIMAL(15, 2) AS ps_supplycost, {comment('(p, w)', 'ps')} AS ps_comment
                FROM range(1, {parts + 1}) a(p), range(4) b(w)""",
            "lines": f"""
                SELECT o, line, p, {supplier} AS s, day, day + (1 + h((o, line), 'ship') % 121)::INT AS ship,
                    day + (30 + h((o, line), 'commit') % 61)::INT AS wanted,
                    if(h(o, 'large') % 200 = 0, 46 + h((o, line), 'qty') % 5, 1 + h((o, line), 'qty') % 50) AS quantity
                FROM (
                    SELECT o, line, 1 + h((o, line), 'part') % {parts} AS p, h((o, line), 'supp') % 4 AS w,
                        DATE '1992-01-01' + (h(o, 'day') % 2406)::INT AS day
                    FROM range(1, {orders + 1}) a(o), range(1, 8) b(line)
                    WHERE line <= if(h(o, 'large') % 200 = 0, 7, 1 + h(o, 'lines') % 7)
                )""",
            "lineitem": f"""
                SELECT o AS l_orderkey, p AS l_partkey, s AS l_suppkey, line::INT AS l_linenumber,
                    quantity::DECIMAL(15, 2) AS l_quantity, (quantity * p_retailprice)::DECIMAL(15, 2) AS l_extendedprice,
                    (h((o, line), 'disc') % 11 / 100.0)::DECIMAL(15, 2) AS l_discount,
                    (h((o, line), 'tax') % 9 / 100.0)::DECIMAL(15, 2) AS l_tax,
                    CASE WHEN receipt > DATE '1995-06-17' THEN 'N' WHEN h((o, line), 'ret') % 2 = 0 THEN 'R' ELSE 'A' END AS l_returnflag,
                    if(ship > DATE '1995-06-17', 'O', 'F') AS l_linestatus, ship AS l_shipdate, wanted AS l_commitdate,
                    receipt AS l_receiptdate, {pick(instructions, "h((o, line), 'inst')")} AS l_shipinstruct,
                    {pick(modes, "h((o, line), 'mode')")} AS l_shipmode, {comment('(o, line)', 'l')} AS l_comment
                FROM (FROM lines SELECT *, ship + (1 + h((o, line), 'rec') % 30)::INT AS receipt) JOIN part ON p = p_partkey""",
            # Each third customer has no orders.
            "orders": f"""
                SELECT o AS o_orderkey, 1 + (c - c % 3 + c % 3 % 2) % {customers} AS o_custkey,
                    CASE WHEN bool_and(l_linestatus = 'F') THEN 'F' WHEN bool_and(l_linestatus = 'O') THEN 'O' ELSE 'P' END AS o_orderstatus,
                    sum(l_extendedprice * (1 + l_tax) * (1 - l_discount))::DECIMAL(15, 2) AS o_totalprice, min(day) AS o_orderdate,
                    {pick(priorities, "h(o, 'prio')")} AS o_orderpriority, printf('Clerk#%09d', h(o, 'clerk') % 1000) AS o_clerk,
                    0 AS o_shippriority, {comment('o', 'o')} AS o_comment
                FROM (SELECT *, h(o, 'cust') % {customers} AS c FROM lines JOIN lineitem ON o = l_orderkey AND line = l_linenumber)
                GROUP BY o, c""",
        },
    )
    (directory / "mart/lines.parquet").unlink()
