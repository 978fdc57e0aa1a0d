-- What BI tools and people write in PostgreSQL's dialect. Each statement is asked of a martd and of a real PostgreSQL
-- that has the same table; from this file comes the list in docs/postgres.md.
-- `= SQL` is answered as PostgreSQL answers it. `! STATE SQL` is refused, with this SQLSTATE. `~ SQL` is answered
-- in DuckDB's way, which is another; PostgreSQL may refuse it. `-- @` begins what stands in one row of the list.

-- The mart `sales`, as both can read it.
SELECT * FROM (VALUES
  (1, 'ada LOVELACE', 1234.50::DECIMAL(12, 2), 0.125::DOUBLE PRECISION, DATE '2026-01-04', TIMESTAMP '2026-01-04 03:04:05.006789', TIMESTAMPTZ '2026-01-04 23:30:00+00', 'order-17 of 2026', true),
  (2, 'o''neil x1y', -0.50, 1234567.891, DATE '2025-12-29', TIMESTAMP '2025-12-29 13:00:00', TIMESTAMPTZ '2026-07-01 22:00:00+00', 'größe_9', false),
  (3, 'BOB', 0, -2.5, DATE '2024-02-29', TIMESTAMP '2024-02-29 00:00:00', TIMESTAMPTZ '2024-02-29 12:00:00+00', '', true),
  (4, '', 999999.99, 100, DATE '2026-10-31', TIMESTAMP '2026-10-31 23:59:59.999', TIMESTAMPTZ '2026-10-25 01:30:00+00', E'two\nlines 42', NULL),
  (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) t(id, name, amount, price, day, made, seen, note, active)

-- @ `to_char` of dates
= SELECT id, to_char(day, 'YYYY-MM-DD') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(made, 'YYYY-MM-DD HH24:MI:SS.MS') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(made, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(seen, 'YYYY-MM-DD HH24:MI') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(made, 'HH12:MI AM') AS x, to_char(made, 'hh:mi pm') AS y FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'Month|MONTH|month') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'FMMonth FMDD, YYYY') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'Mon MON mon Dy DY dy') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'Day|DAY|day|FMDay') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'IYYY-IW-ID IYY IY I') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'YYYY "Q"Q WW W D DDD') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'FMMM/FMDD/YY FMDDD FMWW FMIW') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(made, 'FMHH24:FMMI:FMSS FMHH12') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'YYY Y FMYYYY yyyymmdd') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(day, 'YYYY-MM-01 100% ''-''') AS x FROM mart.sales ORDER BY id
= SELECT to_char(day, 'YYYY') FROM mart.sales ORDER BY id
= SELECT to_char(date_trunc('month', day), 'YYYY-MM') AS month, count(*) AS n FROM mart.sales GROUP BY to_char(date_trunc('month', day), 'YYYY-MM') ORDER BY 1
= SELECT to_char(day, 'YYYY-MM') AS month, sum(amount) AS x FROM mart.sales GROUP BY 1 ORDER BY month
! 0A000 SELECT to_char(day, 'DDth') AS x FROM mart.sales
! 0A000 SELECT to_char(day, 'RM') AS x FROM mart.sales
! 0A000 SELECT to_char(day, 'TMMonth') AS x FROM mart.sales
! 0A000 SELECT to_char(seen, 'HH24:MI TZ') AS x FROM mart.sales
! 0A000 SELECT to_char(day, 'YYYY AD') AS x FROM mart.sales
! 0A000 SELECT to_char(day, 'YYYY-MM-DDTHH24') AS x FROM mart.sales
! 0A000 SELECT to_char(day, 'x of YYYY') AS x FROM mart.sales
! 0A000 SELECT to_char(day, name) AS x FROM mart.sales
! 42804 SELECT to_char(interval '3 hours', 'HH24:MI') AS x

-- @ `to_char` of numbers
= SELECT id, to_char(amount, 'FM999,999,990.00') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(amount, '999G999D99') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(amount, 'FM999999.99') AS x FROM mart.sales ORDER BY id
= SELECT id, to_char(amount, 'FM9,999.90') AS x, to_char(amount, '9,990.0') AS y FROM mart.sales ORDER BY id
= SELECT id, to_char(price, 'FM9,999,990.00') AS x, to_char(price, '9999999.9') AS y FROM mart.sales ORDER BY id
= SELECT id, to_char(id, '000') AS x, to_char(id, '999') AS y, to_char(id, 'FM099') AS z FROM mart.sales ORDER BY id
= SELECT id, to_char(-id * 1000, '9,999') AS x, to_char(id * 10000, '9,999') AS y FROM mart.sales ORDER BY id
= SELECT to_char(0.125::numeric(6,3), 'FM0.00') AS x, to_char(-0.004::numeric(6,3), 'FM0.00') AS y, to_char(0, 'FM999') AS z
= SELECT to_char(sum(amount), 'FM999,999,999,990') AS x FROM mart.sales
! 22P02 SELECT to_char(price::real, '9.9') AS x FROM mart.sales WHERE id = 1
! 22P02 SELECT to_char('NaN'::double precision, '9.9') AS x
! 0A000 SELECT to_char(amount, 'L999') AS x FROM mart.sales
! 0A000 SELECT to_char(amount, '999MI') AS x FROM mart.sales
! 0A000 SELECT to_char(amount, '9.99EEEE') AS x FROM mart.sales
! 0A000 SELECT to_char(amount, '.99') AS x FROM mart.sales
! 0A000 SELECT to_char(amount, '99,99') AS x FROM mart.sales

-- @ `to_date`, `to_timestamp`
= SELECT to_date('2026-01-04', 'YYYY-MM-DD') AS x, to_date('20260104', 'YYYYMMDD') AS y, to_date('4 Jan 2026', 'DD Mon YYYY') AS z
= SELECT to_timestamp('2026-01-04 03:04:05.678900', 'YYYY-MM-DD HH24:MI:SS.US') AS x, to_timestamp('2026-07-01 03:04 PM', 'YYYY-MM-DD HH12:MI PM') AS y
= SELECT to_timestamp(1767225600) AS x, to_timestamp(1767225600.5) AS y
= SELECT id FROM mart.sales WHERE day >= to_date('2026-01-01', 'YYYY-MM-DD') ORDER BY id
= SELECT id FROM mart.sales WHERE made >= to_timestamp('2026-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') ORDER BY id
! 0A000 SELECT to_date('26-01-04', 'YY-MM-DD') AS x
! 0A000 SELECT to_date('2026-01', 'IYYY-IW') AS x
! 0A000 SELECT to_timestamp('12:00', 'HH24:MI') AS x
! 0A000 SELECT to_date('2026-366', 'YYYY-DDD') AS x
! 22023 SELECT to_date('2026-01-04 and more', 'YYYY-MM-DD') AS x
! 42501 SELECT to_number('12,454.8', '99G999D9') AS x

-- @ `~`, `~*`, `!~`, `!~*`
= SELECT id, note ~ 'order' AS a, note ~ '^[0-9]+$' AS b, note ~* 'ORDER' AS c, note !~ 'of' AS d, note !~* 'OF' AS e FROM mart.sales ORDER BY id
= SELECT id FROM mart.sales WHERE note ~ 'o.l' OR note ~ '(17|42)' ORDER BY id
= SELECT id FROM mart.sales WHERE NOT (note !~ 'order') ORDER BY id
= SELECT count(*) FILTER (WHERE name ~ '[a-z]') AS x FROM mart.sales
= SELECT note ~ 'order' FROM mart.sales ORDER BY id
! 0A000 SELECT id FROM mart.sales WHERE note ~ '\border'
! 0A000 SELECT id FROM mart.sales WHERE note ~ '(?i)ORDER'
! 22023 SELECT id FROM mart.sales WHERE note ~ '\yorder'
! 42601 SELECT id FROM mart.sales WHERE note ~ ANY (ARRAY['a'])

-- @ `LIKE`, `ILIKE`, `SIMILAR TO`
= SELECT id, name ILIKE '%LOVE%' AS a, name LIKE 'ada%' AS b, name NOT ILIKE '%b%' AS c, name ~~* 'bob' AS d, name !~~ 'BOB' AS e FROM mart.sales ORDER BY id
= SELECT id FROM mart.sales WHERE name ILIKE ANY (ARRAY['%LOVE%', 'bob']) ORDER BY id
= SELECT id, name LIKE ANY (ARRAY['ada%', NULL]) AS a, name NOT LIKE ALL (ARRAY['ada%', 'x']) AS b, name LIKE ALL (ARRAY['%', NULL]) AS c FROM mart.sales ORDER BY id
= SELECT id, name ILIKE ANY ('{%LOVE%,bob}') AS a, name ILIKE SOME ('{}'::text[]) AS b, name LIKE ALL ('{}'::text[]) AS c FROM mart.sales ORDER BY id
= SELECT id, name ILIKE ANY (string_to_array('%LOVE%,bob', ',')) AS a, name NOT ILIKE ALL (string_to_array('%LOVE%,bob', ',')) AS b FROM mart.sales ORDER BY id
= SELECT id, note SIMILAR TO '%(17|42)%' AS a, note NOT SIMILAR TO 'order%' AS b, note SIMILAR TO 'größe_9' AS c, note SIMILAR TO 'order.17%' AS d FROM mart.sales ORDER BY id
! 0A000 SELECT id FROM mart.sales WHERE note SIMILAR TO name
! 0A000 SELECT id FROM mart.sales WHERE note SIMILAR TO '[a-z]%'
! 42601 SELECT id FROM mart.sales WHERE name LIKE ANY (SELECT name FROM mart.sales)

-- @ `substring`
= SELECT id, substring(note FROM '[0-9]+') AS a, substring(note FROM '-([0-9]+) of') AS b, substring(note, 'e.') AS c FROM mart.sales ORDER BY id
= SELECT id, substring(note FROM 2 FOR 3) AS a, substring(note, 3) AS b, substr(note, 0, 3) AS c FROM mart.sales ORDER BY id
! 0A000 SELECT substring(note FROM 'a|b') AS x FROM mart.sales
! 0A000 SELECT substring(note FROM 'o.*?r') AS x FROM mart.sales
! 0A000 SELECT substring(note FROM '%#"17#"%' FOR '#') AS x FROM mart.sales
~ SELECT substring('abcdef', -1, 3) AS x

-- @ texts
= SELECT id, initcap(name) AS x FROM mart.sales ORDER BY id
= SELECT lpad('a', 3) AS a, rpad('a', 3) || '|' AS b, lpad('7', 3, '0') AS c, lpad('abcd', 2) AS d, left('abc', 2) AS e, right('abc', -1) AS f
= SELECT split_part('a,b,c', ',', 2) AS a, split_part('a,b', ',', 5) AS b, concat_ws('-', 'a', NULL, 1) AS c, concat('a', NULL, 1) AS d, 'a' || 1 AS e
= SELECT strpos('abc', 'c') AS a, position('c' IN 'abc') AS b, btrim('  x ') AS c, btrim('xxaxx', 'x') AS d, trim(BOTH 'x' FROM 'xax') AS e, ltrim(' a') AS f
= SELECT upper('ä') AS a, char_length('größe') AS b, reverse('abc') AS c, repeat('ab', 2) AS d, translate('abc', 'ab', 'x') AS e, ascii('a') AS f, chr(97) AS g, md5('a') AS h
= SELECT regexp_replace('foobarbaz', 'b..', 'X') AS a, regexp_replace('foobarbaz', 'b(..)', 'X\1Y', 'g') AS b, array_to_string(regexp_split_to_array('a b', ' '), ',') AS c
= SELECT to_hex(255) AS a, starts_with('abc', 'ab') AS b, 'abc' COLLATE "C" AS c, E'a\nb' AS d, 'x'::text AS e, 'x'::name AS f
! 0A000 SELECT format('%s-%s', 'a', 1) AS x
! 42501 SELECT quote_literal('x') || name AS x FROM mart.sales
! 42501 SELECT regexp_match(note, '[0-9]+') AS x FROM mart.sales
! 42501 SELECT overlay('abc' placing 'x' from 2 for 1) AS x
~ SELECT 'abcdef'::varchar(3) AS x
~ SELECT regexp_matches('abc', 'b') AS x

-- @ dates and times
= SELECT id, date_trunc('month', made) AS a, date_trunc('week', made) AS b, date_trunc('quarter', made) AS c, date_trunc('hour', seen) AS d, date_trunc('day', seen) AS e FROM mart.sales ORDER BY id
= SELECT id, date_trunc('day', seen, 'America/New_York') AS x FROM mart.sales ORDER BY id
= SELECT id, EXTRACT(EPOCH FROM made) AS a, EXTRACT(EPOCH FROM day) AS b, EXTRACT(EPOCH FROM seen) AS c, date_part('epoch', made) AS d FROM mart.sales ORDER BY id
= SELECT id, EXTRACT(YEAR FROM day) AS a, EXTRACT(MONTH FROM day) AS b, EXTRACT(DOW FROM day) AS c, EXTRACT(ISODOW FROM day) AS d, EXTRACT(DOY FROM day) AS e, EXTRACT(WEEK FROM day) AS f, EXTRACT(QUARTER FROM day) AS g, EXTRACT(HOUR FROM made) AS h, date_part('isoyear', day) AS i FROM mart.sales ORDER BY id
= SELECT id, floor(extract(epoch from made) / 300) * 300 AS x FROM mart.sales ORDER BY id
= SELECT id, age(TIMESTAMP '2026-03-31', made) AS x FROM mart.sales ORDER BY id
= SELECT id, day + 1 AS a, day - DATE '2026-01-01' AS b, day + INTERVAL '1 month' AS c, made - INTERVAL '1 day 2 hours' AS d, made - TIMESTAMP '2026-01-01' AS e FROM mart.sales ORDER BY id
= SELECT id, seen AT TIME ZONE 'UTC' AS a, made AT TIME ZONE 'America/New_York' AS b, seen::date AS c, timezone('UTC', seen) AS d FROM mart.sales ORDER BY id
= SELECT id, date_bin('15 minutes', made, TIMESTAMP '2001-01-01') AS a, make_date(2026, 1, 2) AS b, make_timestamp(2026, 1, 2, 3, 4, 5.5) AS c FROM mart.sales ORDER BY id
= SELECT d FROM generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-03', INTERVAL '1 day') t(d)
~ SELECT (INTERVAL '1 month')::text AS x
~ SELECT EXTRACT(SECOND FROM TIMESTAMP '2026-01-04 00:00:01.5') AS x
~ SELECT date_trunc('month', DATE '2026-01-04') AS x
! 42804 SELECT date_trunc('month', '2026-01-04') AS x
! 42804 SELECT date_trunc('month', note) AS x FROM mart.sales
! 42501 SELECT make_interval(days => 3) AS x
! 42501 SELECT justify_days(INTERVAL '35 days') AS x

-- @ the clock
= SELECT now() - now() = INTERVAL '0' AS a, now() = current_timestamp AS b, now() = transaction_timestamp() AS c, now()::date = current_date AS d, localtimestamp = now()::timestamp AS e, current_time::time = localtime AS f, clock_timestamp() >= now() AS g
= SELECT age(TIMESTAMP '2026-01-04') = age(current_date::timestamp, TIMESTAMP '2026-01-04') AS x
= SELECT current_date - current_date, extract(year from now()) > 2000 AS y
= SELECT id FROM mart.sales WHERE made < now() - INTERVAL '1 year' AND day < current_date - 365 ORDER BY id
= SELECT id FROM mart.sales WHERE made BETWEEN now() - interval '100 years' AND now() AND id IN (1, 2, 3) AND (SELECT count(*) FROM (VALUES (1), (2)) v(n)) = 2 AND seen < current_timestamp AND day < TIMESTAMP '2026-06-01' ORDER BY id

-- @ aggregates and windows
= SELECT string_agg(name, ',' ORDER BY id) AS a, array_agg(id ORDER BY id) AS b, bool_and(id > 0) AS c, every(id > 1) AS d, count(DISTINCT active) AS e FROM mart.sales
= SELECT sum(amount) AS a, min(day) AS b, max(name) AS c, round(avg(amount), 2) AS d, count(*) FILTER (WHERE active) AS e FROM mart.sales
= SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS a, percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS b, mode() WITHIN GROUP (ORDER BY active) AS c FROM mart.sales
= SELECT id, row_number() OVER (ORDER BY id) AS a, lag(id) OVER (ORDER BY id) AS b, sum(id) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS c, ntile(2) OVER (ORDER BY id) AS d, first_value(name) OVER (ORDER BY id) AS e FROM mart.sales ORDER BY id
= SELECT id, 2 = ANY(ARRAY[1, 2]) AS a, id = ANY('{1,2}'::int[]) AS b, id <> ALL(ARRAY[1, 2]) AS c, array_length(ARRAY[1, 2], 1) AS d, array_to_string(ARRAY['a', 'b'], ',') AS e, (ARRAY['a', 'b'])[1] AS f FROM mart.sales ORDER BY id
= SELECT generate_series AS x FROM generate_series(1, 3)
= SELECT n FROM unnest(ARRAY[3, 4]) AS t(n)
~ SELECT generate_series(1, 3) AS x
! 42501 SELECT json_agg(name) AS x FROM mart.sales
! 42501 SELECT width_bucket(5.35, 0.024, 10.06, 5) AS x

-- @ numbers and types
= SELECT 7 % 3 AS a, 2 ^ 3 AS b, mod(-5, 3) AS c, round(2.345, 2) AS d, trunc(1.999, 2) AS e, ceil(1.2) AS f, power(2, 3) AS g, sign(-2) AS h, abs(-2) AS i, greatest(1, NULL, 2) AS j, nullif(1, 1) AS k
= SELECT CAST('1' AS int4) AS a, '2'::int8 AS b, '1.5'::float8 AS c, 't'::bool AS d, CAST(1.5 AS double precision) AS e, 2.5::int AS f, '2026-01-04'::date AS g
= SELECT CAST(16777217 AS FLOAT) AS a, (0.1::float + 0.2::float)::text AS b, x.f::float AS c FROM (SELECT 123456789.125 AS f) x
= SELECT 1 AS "My Alias", 2 AS "größe", 3 AS "select"
= SELECT DISTINCT ON (active) active, id FROM mart.sales WHERE active IS NOT NULL ORDER BY active, id
= SELECT * FROM (SELECT id FROM mart.sales) AS "virtual_table" ORDER BY id LIMIT 2 OFFSET 1
= SELECT "sales"."id" AS "id" FROM "mart"."sales" AS "sales" WHERE ("sales"."active" IS TRUE) ORDER BY "sales"."id" ASC FETCH FIRST 1 ROWS ONLY
= SELECT id FROM mart.sales ORDER BY amount DESC NULLS LAST, id
! 42704 SELECT '{"a":1}'::jsonb AS x
! 42704 SELECT 'mart.sales'::regclass::text AS x FROM mart.sales
~ SELECT 7 / 2 AS x
~ SELECT 1.23456::numeric AS x
! 42703 SELECT to_char(nothing, 'YYYY') AS x FROM mart.sales
! 42601 SELECT to_char(day, 'YYYY' AS x FROM mart.sales
~ SELECT amount FROM mart.sales ORDER BY amount DESC LIMIT 1
