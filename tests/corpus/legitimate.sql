-- Statements that the gate lets through, one a line, over the tables mart.orders, mart.customers and mart.payments.
select 1
select * from mart.orders
SELECT id, amount FROM mart.orders WHERE status = 'paid' ORDER BY amount DESC NULLS LAST LIMIT 10 OFFSET 5
from mart.orders
from mart.orders select status, count(*) group by all order by all
table mart.orders
values (1, 'a'), (2, 'b')
select * from (values (1, 'a'), (2, 'b')) as v(x, y)
select distinct status from mart.orders
select distinct on (customer_id) customer_id, amount from mart.orders order by customer_id, created_at desc
select status, sum(amount) filter (where amount > 0), avg(amount)::decimal(12, 2) from mart.orders group by status having count(*) > 1
select country, status, sum(amount), grouping(country) from mart.orders o join mart.customers c on c.id = o.customer_id group by grouping sets ((country, status), (country), ())
select country, status, count(*) from mart.orders o join mart.customers c on c.id = o.customer_id group by rollup (country, status)
select country, status, count(*) from mart.orders o join mart.customers c on c.id = o.customer_id group by cube (country, status)
select o.id, c.name from mart.orders o left join mart.customers c on c.id = o.customer_id
select * from mart.orders o join mart.payments p on p.order_id = o.id and p.amount >= o.amount
select * from mart.orders o natural join (select 1 as id) x
select * from mart.orders join (select 1 as id) x using (id)
select o.id, p.amount from mart.orders o asof join mart.payments p on p.order_id = o.id and p.paid_at <= o.created_at
select * from mart.orders positional join mart.customers
select * from mart.orders o semi join mart.payments p on p.order_id = o.id
select * from mart.orders o anti join mart.payments p on p.order_id = o.id
select o.id, x.total from mart.orders o, lateral (select sum(p.amount) as total from mart.payments p where p.order_id = o.id) x
select o.id, t.tag from mart.orders o, unnest(o.tags) as t(tag)
select o.id, unnest(o.tags) as tag from mart.orders o
select id, row_number() over (partition by customer_id order by created_at desc) as n from mart.orders qualify n = 1
select id, amount, sum(amount) over (partition by customer_id order by created_at rows between 2 preceding and current row) from mart.orders
select id, avg(amount) over w, lag(amount, 1, 0) over w, first_value(amount ignore nulls) over w from mart.orders window w as (partition by customer_id order by created_at)
select day, sum(amount) over (order by day range between interval 7 days preceding and current row) from mart.orders
select id, rank() over (order by amount), dense_rank() over (order by amount), ntile(4) over (order by amount), percent_rank() over (order by amount) from mart.orders
select count(*) over (order by day groups between 1 preceding and 1 following exclude current row) from mart.orders
with paid as (select * from mart.orders where status = 'paid') select count(*) from paid
with a as (select * from mart.orders), b as (select * from a where amount > 10) select * from b join a using (id)
with a as materialized (select customer_id, sum(amount) as total from mart.orders group by 1) select * from a where total > (select avg(total) from a)
with a(x) as (select amount from mart.orders) select sum(x) from a
with recursive days(d) as (select date '2024-01-01' union all select (d + interval 1 day)::date from days where d < date '2024-01-31') select d, count(o.id) from days left join mart.orders o on o.day = d group by d order by d
with recursive t(n) as (values (1) union select n + 1 from t where n < 100) select sum(n) from t
with orders as (select * from mart.orders where amount > 0) select * from orders
select * from mart.orders where customer_id in (select id from mart.customers where country = 'DE')
select * from mart.orders o where exists (select 1 from mart.payments p where p.order_id = o.id)
select * from mart.orders o where amount > all (select amount from mart.payments p where p.order_id = o.id)
select (select max(amount) from mart.payments), (select count(*) from mart.customers)
select id, case when amount > 100 then 'big' when amount > 10 then 'mid' else 'small' end as size from mart.orders
select id, case status when 'paid' then 1 when 'open' then 2 end from mart.orders
select coalesce(note, 'none'), nullif(status, ''), ifnull(note, status), greatest(amount, 0), least(amount, 10) from mart.orders
select columns('id|amount') from mart.orders
select columns(c -> c like 'a%') from mart.orders
select sum(columns(* exclude (id, customer_id, status, created_at, day, tags, note, doc, address))) from mart.orders
select * exclude (note) replace (upper(status) as status) rename (id as order_id) from mart.orders
select o.* exclude (note), c.* from mart.orders o join mart.customers c on c.id = o.customer_id
select list_transform(tags, x -> upper(x)), list_filter(tags, lambda x: length(x) > 1), [upper(x) for x in tags if x <> ''] from mart.orders
select list_reduce([1, 2, 3], lambda a, b: a + b), list_aggregate([1, 2, 3], 'sum'), list_sum([1, 2]), tags[1], tags[1:2], len(tags) from mart.orders
select address.city, address['zip'], struct_pack(a := 1, b := 2), {'a': 1}.a, row(1, 2), (address).city from mart.orders
select map {'a': 1}['a'], map_keys(map(['a'], [1])), map_from_entries([(1, 2)])
select doc->'a'->>'b', doc->>'$.a.b', json_extract_string(doc, '$.a'), json_array_length(doc, '$.tags') from mart.orders
select * from json_each('{"a": 1, "b": 2}')
select date_trunc('month', created_at) as month, sum(amount) from mart.orders group by 1 order by 1
select extract(year from created_at), date_part('week', day), dayname(day), strftime(created_at, '%Y-%m'), age(created_at, timestamp '2024-01-01') from mart.orders
select created_at at time zone 'Europe/Berlin', time_bucket(interval '1 hour', created_at), epoch_ms(created_at) from mart.orders
select date_diff('day', day, date '2024-12-31'), day + 1, day - interval 1 month, last_day(day), make_date(2024, 1, 2) from mart.orders
select regexp_replace(note, '(\d+)', '<\1>', 'g'), regexp_extract(note, 'a(.)', 1), note similar to 'a.*', note ilike '%x%', string_split(note, ',') from mart.orders
select note like 'a!%' escape '!', starts_with(note, 'a'), contains(note, 'b'), position('a' in note), substring(note from 1 for 3), trim(both ' ' from note) from mart.orders
select lower(note).upper().length() from mart.orders
select note collate nocase, name from mart.orders o join mart.customers c on o.note = c.name collate nocase.noaccent order by name collate de
select md5(note), sha256(note), hash(id), to_base64(encode(note)), hex(id) from mart.orders
select quantile_cont(amount, 0.5), median(amount), mode(status), approx_quantile(amount, 0.9), stddev(amount), corr(amount, id), arg_max(id, amount), histogram(status), entropy(status) from mart.orders
select percentile_cont(0.5) within group (order by amount), mode() within group (order by status) from mart.orders
select string_agg(status, ', ' order by status), array_agg(distinct status), count(distinct customer_id), bool_and(amount > 0), any_value(note) from mart.orders
select array(select name from mart.customers order by name)
select id from mart.orders union all select id from mart.customers
select id from mart.orders except select order_id from mart.payments intersect select id from mart.customers
(select id from mart.orders order by id limit 1) union all by name (select id from mart.customers) order by id
describe mart.orders
describe select id, amount from mart.orders
summarize mart.orders
summarize select amount from mart.orders
select column_name from (describe mart.orders)
select column_name, max from (summarize mart.orders)
show mart.orders
select * from mart.orders where id = $1 and status = $2
select * from mart.orders where id = ? and status = ?
select * from mart.orders where id in (select unnest($ids::int[])) and status = $status
select * from mart.orders limit $1
select * from mart.orders limit 10%
from mart.orders pivot (sum(amount) for status in ('paid', 'open') group by customer_id)
pivot mart.orders on status in ('paid', 'open') using sum(amount) group by customer_id
from (select id, amount, customer_id from mart.orders) unpivot (value for name in (amount, customer_id))
unpivot (select id, amount::int as amount, customer_id from mart.orders) on amount, customer_id into name n value v
select * from range(10)
select * from range(date '2024-01-01', date '2024-02-01', interval 1 day) r(d)
select unnest(range(1, 10, 2)), unnest(generate_series(1, 3))
select r.d, count(o.id) from generate_series(timestamp '2024-01-01', timestamp '2024-01-31', interval '1 day') r(d) left join mart.orders o on o.day = r.d::date group by 1
select * from mart.orders tablesample 10%
select * from mart.orders using sample reservoir(50 rows) repeatable (42)
select current_date, now(), current_timestamp, today()
select random(), uuid()
select amount * 1.19 as gross, gross - amount as vat, round(vat, 2) from mart.orders where gross > 10
select levenshtein(left(name, 100), 'Berlin'), jaro_winkler_similarity(name, 'Berlin') from mart.customers
select try_cast(note as integer), cast(amount as varchar), amount::double, try(1 / 0), note::json, '[1]'::int[] from mart.orders
select "id", "Amount", o."status" from "mart"."orders" as o
select MART.Orders.ID from Mart.ORDERS
select 'it''s', e'a\'b', $$it's$$, $x$ $$ $x$, 'ünïcödé 💩', 'a;b', '--', '/*'
select /* a comment /* in a comment */ */ id -- and another\nfrom mart.orders; -- the end
select 1 as "select", 2 as "from"
select count(*) from mart.orders where not (status = 'x' or status = 'y') and amount between 1 and 2 and note is not null and note is distinct from 'a'
select -amount, +amount, amount % 3, amount // 2, 2 ** 3, id & 1, id | 2, id << 1, ~id, note || 'x' from mart.orders
select from_json('{"a": 1}', '{"a": "INTEGER"}').a, to_json({'a': 1}), json_object('a', 1), json_group_array(id) from mart.orders
select format('{:.2f}', amount), printf('%05d', id), bar(amount, 0, 100), lpad(note, 10, ' ') from mart.orders
select user, t."user" from (select 'me' as "user") t
select 1 where 1 in (1, 2) and (1, 2) in ((1, 2), (3, 4)) and 'a' in ['a']
select o.tags.len(), o.note.upper() from mart.orders o
select count(*) filter (where status = 'paid') * 100.0 / count(*) from mart.orders
select «300:id+»id from mart.orders
select 1 from mart.orders where «300:id = 1 or »id = 2
select «150:note || »note from mart.orders
select id in («2000:1,»1) from mart.orders
select «40:round(»amount«40:)» from mart.orders
select «12:(select »1«12:)»
select coalesce(«60:coalesce(»note«60:, 'a')», '') from mart.orders
select switch(id, map {1: 'a', 2: 'b'}) from mart.orders
select lag(id, -2) over (order by day), lead(id, customer_id + 1, 0) over (order by day) from mart.orders
select * from information_schema.tables
show tables
describe tables
select * from (show tables)
describe information_schema.tables
select version(), current_schema(), current_schema, current_database(), current_catalog
select c.column_name from "Information_Schema".columns c join information_schema.tables t using (table_schema, table_name)
select "CURRENT_SCHEMA"
select current_catalog
select current_database()
select * from INFORMATION_SCHEMA.columns
summarize tables
