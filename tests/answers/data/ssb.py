"""The Star Schema Benchmark's fact table and its four dimensions."""

from __future__ import annotations

from pathlib import Path

from data.tpch import NATIONS, REGIONS
from data.write import pick, write_marts


def place(prefix: str, key: str) -> str:
    """City, nation and region of a customer or a supplier."""
    # One nation in three is one that the queries ask for, so that small scales have rows for them.
    names = [*NATIONS, *["UNITED STATES", "UNITED KINGDOM"] * 6]
    regions = [REGIONS[NATIONS[name]] for name in names]
    digits = ["1", "5", *map(str, range(10))]
    nation, hash = pick(names, f"h({key}, '{prefix}nation')"), f"h({key}, '{prefix}nation')"
    return f"""
        rpad(left({nation}, 9), 9, ' ') || {pick(digits, f"h({key}, '{prefix}city')")} AS {prefix}_city,
        {nation} AS {prefix}_nation, {pick(regions, hash)} AS {prefix}_region"""


def write(directory: Path, scale: float) -> None:
    """Scale 1 has 6,000,000 rows in lineorder."""
    rows, customers = max(int(6_000_000 * scale), 6_000), max(int(30_000 * scale), 300)
    suppliers, parts = max(int(2_000 * scale), 100), max(int(200_000 * scale), 2_000)
    segments = ["AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD"]
    write_marts(
        directory,
        {
            "date": """
                SELECT strftime(day, '%Y%m%d')::INT AS d_datekey, strftime(day, '%B %-d, %Y') AS d_date,
                    dayname(day) AS d_dayofweek, monthname(day) AS d_month, year(day)::INT AS d_year,
                    strftime(day, '%Y%m')::INT AS d_yearmonthnum, strftime(day, '%b%Y') AS d_yearmonth,
                    (1 + dayofweek(day))::INT AS d_daynuminweek, day(day)::INT AS d_daynuminmonth,
                    dayofyear(day)::INT AS d_daynuminyear, month(day)::INT AS d_monthnuminyear,
                    (1 + (dayofyear(day) - 1) // 7)::INT AS d_weeknuminyear,
                    CASE WHEN month(day) = 12 THEN 'Christmas' WHEN month(day) BETWEEN 6 AND 8 THEN 'Summer'
                        WHEN month(day) BETWEEN 3 AND 5 THEN 'Spring' WHEN month(day) < 3 THEN 'Winter' ELSE 'Fall' END AS d_sellingseason,
                    (dayofweek(day) = 6)::INT AS d_lastdayinweekfl, (day = last_day(day))::INT AS d_lastdayinmonthfl,
                    (month(day) = 12 AND day(day) = 25)::INT AS d_holidayfl, (dayofweek(day) BETWEEN 1 AND 5)::INT AS d_weekdayfl
                FROM (SELECT DATE '1992-01-01' + i::INT AS day FROM range(2557) t(i))""",
            "customer": f"""
                SELECT i AS c_custkey, printf('Customer#%09d', i) AS c_name, md5(i::VARCHAR)[:15] AS c_address, {place('c', 'i')},
                    printf('%02d-%03d', h(i, 'p') % 35, h(i, 'p') % 1000) AS c_phone, {pick(segments, "h(i, 'seg')")} AS c_mktsegment
                FROM range(1, {customers + 1}) t(i)""",
            "supplier": f"""
                SELECT i AS s_suppkey, printf('Supplier#%09d', i) AS s_name, md5('s' || i)[:15] AS s_address, {place('s', 'i')},
                    printf('%02d-%03d', h(i, 'q') % 35, h(i, 'q') % 1000) AS s_phone
                FROM range(1, {suppliers + 1}) t(i)""",
            "part": f"""
                SELECT i AS p_partkey, 'part ' || i AS p_name, 'MFGR#' || m AS p_mfgr, 'MFGR#' || m || c AS p_category,
                    'MFGR#' || m || c || (1 + h(i, 'b') % 40) AS p_brand1, {pick(["red", "green", "blue"], "h(i, 'col')")} AS p_color,
                    'STANDARD TIN' AS p_type, (1 + h(i, 's') % 50)::INT AS p_size, 'SM BOX' AS p_container
                FROM (SELECT i, 1 + h(i, 'm') % 5 AS m, 1 + h(i, 'c') % 5 AS c FROM range(1, {parts + 1}) t(i))""",
            "lineorder": f"""
                SELECT 1 + i // 4 AS lo_orderkey, (1 + i % 4)::INT AS lo_linenumber, 1 + h(i // 4, 'c') % {customers} AS lo_custkey,
                    1 + h(i, 'p') % {parts} AS lo_partkey, 1 + h(i, 's') % {suppliers} AS lo_suppkey,
                    strftime(DATE '1992-01-01' + (h(i // 4, 'd') % 2406)::INT, '%Y%m%d')::INT AS lo_orderdate,
                    '1-URGENT' AS lo_orderpriority, 0 AS lo_shippriority, quantity::INT AS lo_quantity, price AS lo_extendedprice,
                    price * 3 AS lo_ordtotalprice, discount::INT AS lo_discount, price * (100 - discount) // 100 AS lo_revenue,
                    price * 6 // 10 // quantity AS lo_supplycost, (h(i, 't') % 9)::INT AS lo_tax,
                    strftime(DATE '1992-01-01' + (30 + h(i // 4, 'd') % 2406)::INT, '%Y%m%d')::INT AS lo_commitdate, 'RAIL' AS lo_shipmode
                FROM (
                    SELECT i, quantity, quantity * (90000 + h(i, 'price') % 110000) AS price, h(i, 'disc') % 11 AS discount
                    FROM (SELECT i, 1 + h(i, 'q') % 50 AS quantity FROM range({rows}) t(i))
                )""",
        },
    )
