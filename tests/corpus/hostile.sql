-- Hostile statements, one a line: what stops it, a tab, the statement.
-- «n:x» stands for x repeated n times, \n \t \r \u{..} for characters.
-- syntax, statement, function, empty: the validator rejects it so.
-- unknown: it names a table that is not a mart, a file among others; whoever knows the marts rejects it.
-- limits: the validator lets it through; time, memory or row limits stop it where it runs.
-- safe: looks hostile, and is not.
-- Files
function	select * from read_parquet('/etc/passwd')
function	select * from read_csv('/etc/passwd')
function	select * from read_csv_auto('/etc/passwd', header = false)
function	select * from read_text('/etc/passwd')
function	select * from read_blob('/proc/self/environ')
function	select * from read_json('/etc/passwd')
function	select * from read_json_objects('x')
function	select * from read_ndjson_auto('x')
function	select * from parquet_scan('/proc/self/fd/5')
function	select * from read_parquet('/proc/self/fd/5')
function	select * from read_parquet(['/proc/self/fd/5', '/proc/self/fd/6'])
function	select * from parquet_metadata('/proc/self/fd/5')
function	select * from parquet_schema('/proc/self/fd/5')
function	select * from parquet_file_metadata('/proc/self/fd/5')
function	select * from parquet_kv_metadata('/proc/self/fd/5')
function	select * from parquet_full_metadata('/proc/self/fd/5')
function	select * from parquet_bloom_probe('/proc/self/fd/5', 'id', 1)
function	select * from read_duckdb('/data/analytics.duckdb')
function	select * from glob('/*')
function	select * from glob('/proc/self/fd/*')
function	select * from sniff_csv('/etc/passwd')
function	select * from READ_TEXT('/etc/passwd')
function	select * from "read_text"('/etc/passwd')
function	select * from "Read_Text"('/etc/passwd')
function	select * from main.read_text('/etc/passwd')
function	select * from system.main.read_text('/etc/passwd')
function	select * from "system"."main"."read_text"('/etc/passwd')
function	select * from mart.orders, read_text('/etc/passwd')
function	select * from mart.orders o, lateral (select * from read_text(o.note))
function	select (select content from read_text('/etc/passwd'))
function	with x as (select * from read_text('/etc/passwd')) select * from x
function	with read_text as (select 1) select * from read_text('/etc/passwd')
function	select * from mart.orders where note in (select content from read_text('/etc/passwd'))
function	select 1 order by (select content from read_text('/etc/passwd'))
function	select 1 limit (select length(content) from read_text('/etc/passwd'))
function	select count(*) filter (where exists (from read_text('/etc/passwd'))) from mart.orders
function	select sum(id) over (order by (select 1 from read_text('x'))) from mart.orders
function	select case when true then (select content from read_text('x')) end
function	select list_transform([1], x -> (select content from read_text('x')))
function	select * exclude (id) replace ((select content from read_text('x')) as note) from mart.orders
function	select columns(c -> c = (select content from read_text('x'))) from mart.orders
syntax	from mart.orders pivot (sum(id) for (select content from read_text('x')) in ('a'))
function	from read_text('x') pivot (count(*) for content in ('a'))
function	from mart.orders unpivot (v for n in ((select content from read_text('x'))))
function	values ((select content from read_text('x')))
function	select 1 union all select content from read_text('x')
function	select 1 except (select 1 from read_text('x'))
function	with recursive t as (select 1 union all select 1 from read_text('x')) select * from t
function	with recursive t as (select 1 from read_text('x') union all select 1 from t) select * from t
function	describe select * from read_text('/etc/passwd')
function	summarize select * from read_parquet('/proc/self/fd/5')
function	select * from (describe from read_csv('/etc/passwd'))
function	select unnest((select list(content) from read_text('x')))
function	select * from unnest((select list(content) from read_text('x')))
function	select * from range((select 1 from read_text('x')))
function	select grouping((select 1 from read_text('x'))) from mart.orders group by id
function	select 1 group by grouping sets (((select 1 from read_text('x'))))
function	select distinct on ((select 1 from read_text('x'))) id from mart.orders
function	select * from mart.orders a join mart.payments b on (select true from read_text('x'))
function	select 1 having (select true from read_text('x'))
function	select 1 qualify (select true from read_text('x'))
function	select 'a' collate nocase = (select content from read_text('x'))
function	select id between 1 and (select 1 from read_text('x')) from mart.orders
function	select cast((select content from read_text('x')) as varchar)
function	select array(select content from read_text('x'))
function	select any_value(id order by (select 1 from read_text('x'))) from mart.orders
function	select * from arrow_scan(1, 2, 3)
unknown	select * from '/etc/passwd'
unknown	select * from '/proc/self/fd/5'
unknown	select * from "/proc/self/fd/5"
unknown	select * from 'data.parquet'
unknown	select * from "x.csv"
unknown	select * from 'x.CSV.GZ'
unknown	select * from 'x.json'
unknown	select * from '../secrets.duckdb'
unknown	select * from 'mart/*.parquet'
unknown	select * from '?.db'
unknown	from 'C:\data'
unknown	describe '/etc/passwd'
unknown	summarize 'x.parquet'
unknown	table "x.parquet"
unknown	with x as (select 1) select * from x, 'x.parquet'
unknown	select (select count(*) from 'x.parquet')
unknown	select * from data.parquet
unknown	from tmp.csv
-- Network
function	select * from read_parquet('https://example.com/x.parquet')
function	select * from read_csv('s3://bucket/x.csv')
function	select * from read_text('hf://datasets/x')
unknown	select * from 'https://example.com/x.parquet'
unknown	from 's3://bucket/key'
unknown	from "http://169.254.169.254/latest/meta-data"
-- Statements that are not a SELECT
statement	attach '/tmp/x.db' as x
statement	attach ':memory:' as x
statement	detach mart
statement	use mart
statement	copy mart.orders to '/tmp/x.csv'
statement	copy (select 1) to '/proc/self/fd/5'
statement	copy mart.orders from '/etc/passwd'
statement	export database '/tmp/x'
statement	import database '/tmp/x'
statement	install httpfs
statement	load '/tmp/evil.duckdb_extension'
statement	force install httpfs from 'http://evil'
statement	update extensions
statement	pragma database_list
statement	pragma table_info('mart.orders')
statement	pragma version
statement	pragma enable_profiling
statement	set memory_limit = '1TB'
statement	set variable scope = 'bob'
statement	reset memory_limit
statement	set enable_external_access = true
statement	set session time zone 'UTC'
statement	call pragma_version()
statement	call force_checkpoint()
statement	checkpoint
statement	create table x as select 1
statement	create or replace view mart.orders as select 1
statement	create macro f() as 1
statement	create macro f() as table select * from read_text('x')
statement	create temp table x (a int)
statement	create secret (type s3, key_id 'x')
statement	create type mood as enum ('a')
statement	create sequence s
statement	create schema x
statement	drop table mart.orders
statement	alter table mart.orders add column x int
statement	insert into mart.orders values (1)
statement	update mart.orders set id = 1
statement	delete from mart.orders
statement	truncate mart.orders
statement	merge into mart.orders using mart.payments on true when matched then delete
statement	begin
statement	commit
statement	prepare p as select 1
statement	execute p
statement	deallocate p
statement	explain select 1
statement	explain analyze select * from mart.orders
statement	vacuum
statement	analyze
statement	comment on table mart.orders is 'x'
statement	pivot mart.orders on status using sum(amount)
syntax	select 1 into x
syntax	select * from mart.orders for update
syntax	with x as (insert into mart.orders values (1) returning *) select * from x
syntax	with x as (delete from mart.orders) select 1
syntax	select * from (insert into mart.orders values (1))
syntax	select * from (attach 'x')
syntax	copy
-- Several statements, and comments that hide them
statement	select 1; select 2
statement	select 1; drop table mart.orders
statement	select 1; attach '/tmp/x.db'
statement	select 1;;;select 2
statement	drop table mart.orders; select 1
statement	set variable x = 1; select 1
statement	select 1;\nselect * from mart.orders
statement	select 1;/* */select 2
statement	select 1; -- x\nselect 2
statement	select 1 -- x\r; select 2
statement	select 1 -- x\n; select 2
statement	select '/*'; drop table mart.orders --*/'
statement	select $$ ; $$; select 2
statement	select 'a\'; drop table mart.orders --'
statement	/* x */ drop table mart.orders
statement	/**/copy/**/mart.orders/**/to/**/'x'
statement	-- x\nattach 'x'
statement	/* /* */ */ install httpfs
function	select /* */ * /* */ from /* */ read_text /* */ ( /* */ 'x' /* */ )
function	select * from read_text--x\n('/etc/passwd')
function	select/**/query/**/('select 1')
syntax	select * from/**/read_text('x')/*
statement	select 1\u{a0};\u{a0}select\u{a0}2
function	select\u{a0}*\u{3000}from\u{2003}read_text('x')
function	select * from read_text\u{feff}('x')
function	select * from \u{200b}read_text('x')
safe	select 'drop table mart.orders; attach ''x'''
safe	select $$; drop table mart.orders$$
safe	select 1 -- ; drop table mart.orders
safe	select 1 /* ; drop table mart.orders */
safe	select 1;
safe	select e'\x27; drop table mart.orders --'
-- Encodings
syntax	select * from U&"read\005ftext"('x')
syntax	select U&'\0041'
statement	select 1\u{0}; drop table mart.orders
statement	sel\u{0}ect 1
syntax	select 1\u{ff1b} drop table mart.orders
syntax	\u{feff1}select 1
function	select * from re\u{0430}d_text('x')
unknown	select * from read\u{200b}_text('x')
function	select * from read_te\u{445}t('x')
function	select * from ｒｅａｄ_text('x')
unknown	select * from m\u{0430}rt.orders
unknown	select * from "mart.orders"
unknown	select * from "mart"".""orders"
-- SQL in text, serialized SQL, macros
function	select * from query('select 1')
function	from query('from read_text(''x'')')
function	select * from query_table('mart.orders')
function	select * from query_table(['a', 'b'])
function	select * from query_table('read_text')
function	from histogram(mart.orders, amount)
function	from histogram('duckdb_settings', name)
function	from histogram_values('duckdb_settings', name)
function	from summary((select 1))
function	select json_serialize_sql('select 1')
function	select json_serialize_plan('select * from mart.orders')
function	select json_deserialize_sql(json_serialize_sql('select 1'))
function	select * from json_execute_serialized_sql(json_serialize_sql('select 1'))
function	from json_execute_serialized_sql('{}')
function	from sql_auto_complete('sel')
function	from check_peg_parser('select 1')
function	select unknown_macro(1)
function	select * from unknown_table_macro(1)
function	select mart.orders(1)
-- Settings, environment, state
function	select current_setting('memory_limit')
function	select CURRENT_SETTING('allowed_paths')
function	select main.current_setting('temp_directory')
function	select ('memory_limit').current_setting()
function	select getenv('HOME')
function	select getvariable('scope')
function	select ('scope').getvariable()
function	select system.main.getvariable('scope')
function	select current_schemas(true)
function	select current_query()
function	select txid_current()
function	select current_connection_id()
function	select in_search_path('memory', 'mart')
function	select nextval('s')
function	select setseed(0.5)
function	select write_log('x')
function	select sleep_ms(100000)
function	select pg_sleep(100)
function	select stats(note) from mart.orders
function	select vector_type(note) from mart.orders
function	from which_secret('s3://x', 's3')
function	from enable_logging()
function	from force_checkpoint()
function	from checkpoint()
function	from test_all_types()
function	from seq_scan()
function	from pg_sleep(1)
function	select pg_get_viewdef(1)
function	select pg_catalog.pg_get_viewdef(1)
function	select has_table_privilege('mart.orders', 'select')
function	select __internal_decompress_string(1)
function	select create_sort_key(1)
function	select finalize('x')
function	select combine('x', 'y')
statement	select sum(id) export_state from mart.orders
-- Catalog
function	select * from duckdb_settings()
function	select * from duckdb_tables()
function	select sql from duckdb_views()
function	select * from duckdb_secrets()
function	select * from duckdb_functions()
function	select * from duckdb_memory()
function	select * from duckdb_temporary_files()
function	select * from duckdb_variables()
function	select * from duckdb_logs()
function	select * from duckdb_external_file_cache()
function	select * from pragma_database_size()
function	select * from pragma_table_info('mart.orders')
function	select * from pragma_storage_info('mart.orders')
function	select * from pragma_show('mart.orders')
function	select * from pragma_version()
unknown	select * from duckdb_settings
statement	select sql from duckdb_views
statement	select * from main.duckdb_tables
statement	select * from sqlite_master
statement	select * from SQLITE_MASTER
statement	select * from "sqlite_schema"
statement	select * from pragma_database_list
statement	select * from pg_class
statement	select * from pg_catalog.pg_tables
statement	select * from memory.information_schema.tables
statement	select * from system.information_schema.tables
statement	select * from system.main.duckdb_views
statement	select * from system.pg_catalog.pg_class
statement	select * from temp.main.x
statement	select * from temp.x
statement	select * from otherdb.mart.orders
statement	with pg_class2 as (select 1) select * from pg_class
statement	show all tables
statement	show databases
statement	show schemas
statement	show tables from mart
statement	show
statement	describe
statement	select * from (show all tables)
statement	select * from (describe)
statement	from (show databases) select *
statement	describe duckdb_views
statement	summarize pg_catalog.pg_class
statement	show sqlite_master
unknown	select * from main.scoped_orders
statement	select * from memory.main.x
unknown	select * from orders
unknown	with x as (select * from x) select * from x
unknown	with x as (select 1 from y), y as (select 1) select * from x
unknown	with x as (select 1) select * from main.x
unknown	with x as (select 1) select * from memory.x
unknown	with x as (select 1) select * from recurring.x
unknown	select * from (with x as (select 1) select 1), x
unknown	(with x as (select 1) select * from x) union all select 1 from x
statement	select * from mart.orders at (version => 1)
statement	select 1::other.mood
statement	select 1::x.y.z
statement	from mart.orders pivot (sum(id) for status in moods)
-- Shape: what the parser, the binder or the optimizer cannot be stopped in
statement	«70000: »select 1
statement	select '«70000:a»'
statement	select «1200:1+»1
statement	select «5000:(»1«5000:)»
statement	select «300:[»1«300:]»
statement	select «300:{'a': »1«300:}»
statement	select «100:[»1«100:]»
statement	select «70:{'a': »1«70:}»
statement	select «70:abs(»1«70:)»
statement	select «40:interval (»1«40:) day»
safe	select «1000:- »1
statement	select «1000:- »id from mart.orders
statement	select «1000:not »true
statement	select 1«450:::int»
statement	select «9:/*»«9:*/»1
statement	select «5000:/*»1
statement	select «5000:/* »«5000: */»1
statement	select 1«20:->'a'»
statement	select note«20:->id» from mart.orders
statement	select 1 where «42:exists(select 1 where »true«42:)»
statement	select «13:(select »1«13:)»
statement	select * from «13:(select * from »mart.orders«13:)»
statement	select «13:array(select 1 order by »1«13:)»
statement	select «30:list_transform([1], x -> »1«30:)»
statement	select «30:list_transform([1], lambda x: »1«30:)»
statement	select «30:[»x«30: for x in [1]]»
statement	select * from «13:(summarize »mart.orders«13:)»
statement	«13:with x as (»select 1«13:) select * from x»
statement	select «6:(select list_transform([1], x -> »1«6:))», «13:list_transform([1], x -> »1«13:)»
statement	select a.b.c.d.e.f.g.h.i
statement	select «10000:a.»a
statement	select 1 from «60:mart.orders,»mart.orders
statement	select 1 from mart.orders«60: natural join mart.orders»
statement	select 1 from mart.orders where true«60: and id in (select id from mart.orders)»
statement	select 1 from mart.orders where true«70: and id + 1 = customer_id»
statement	select 1«400: except select 1»
statement	select «20:nullif(»id«20:, 1)» from mart.orders
statement	select «12:round_even(»amount«12:, 1)» from mart.orders
statement	select «9:(»id«9: between 1 and 2)::int» from mart.orders
statement	select id a, a+a b, b+b c, c+c d, d+d e, e+e f, f+f g, g+g h, h+h i, i+i j, j+j k, k+k l, l+l m, m+m n, n+n o, o+o p from mart.orders
statement	with a as (select * from mart.orders x, mart.orders y), b as (select * from a x, a y), c as (select * from b x, b y), d as (select * from c x, c y), e as (select * from d x, d y), f as (select * from e x, e y) select count(*) from f
statement	select «14:case »1«14: when 1 then 2 when 2 then 3 end»
statement	select case «200:1+»1 «200:when 1 then 2 »end
statement	select «400:sum(id) over w, »1 from mart.orders window w as (partition by «2000:id,»id)
statement	select 1 from mart.orders group by rollup («200:id,»id)
statement	select 1 from mart.orders group by cube («70:id,»id)
syntax	select 1 from mart.orders group by cube (id,id+1,id+2,id+3,id+4,id+5,id+6,id+7,id+8,id+9,id+10,id+11,id+12,id+13,id+14,id+15,id+16)
statement	from mart.orders pivot (count(*) for id in («100:1,»1) status in («100:'a',»'b'))
statement	select 1e999
statement	select (repeat('[', 100000) || repeat(']', 100000))::json::variant
statement	select '[]'::json::"variant"
statement	select null::struct(a variant[])
function	select json_transform('[]', repeat('[', 2000) || '"INT"' || repeat(']', 2000))
function	select from_json('[]', $1)
function	select from_json_strict('[]', note) from mart.orders
function	select ('[]').json_transform(repeat('[', 2000) || '"INT"' || repeat(']', 2000))
function	select json_transform('[]', '«60:[»"INT"«60:]»')
function	select json_structure(repeat('{"a":', 100000) || '1' || repeat('}', 100000))
function	select json_group_structure(note::json) from mart.orders
function	select levenshtein(repeat('a', 100000), repeat('b', 100000))
function	select levenshtein(note, note) from mart.orders
function	select note.levenshtein('a') from mart.orders
function	select editdist3(left(note, 1000), left(note, 1000)) from mart.orders
function	select damerau_levenshtein(repeat('a', 20000), 'b')
function	select len(range(timestamp '1900-01-01', timestamp '2100-01-01', interval 1 second))
function	select generate_series(day, day, interval 1 day) from mart.orders
function	select unnest(range($1, $2, $3))
function	select day.range(day, interval 1 day) from mart.orders
function	select repeat('a', 50) glob repeat('*a', 50)
-- Arguments with which DuckDB has an internal error, which invalidates the database
function	select switch(id, map([id], [1])) from mart.orders
function	select switch(id, map {1: id}) from mart.orders
function	select switch(id, map {1: (select 3)}) from mart.orders
function	select switch(id, map {1: 2}, amount) from mart.orders
function	select id.switch(map {id: 2}) from mart.orders
function	select reservoir_quantile(id, 0.5, 100000000) from mart.orders
function	select reservoir_quantile(id, 0.5) from range(200000) t(id) group by id
function	select list_aggregate([1, 2], $1, 0.5)
function	select reservoir_quantile(id, 0.5, 100000000) over () from mart.orders
function	select list_aggregate([1, 2], 'reservoir_quantile', 0.5, 100000000)
function	select list_aggregate([1, 2], 'reservoir' || '_quantile', 0.5, 100000000)
function	select lag(id, -9223372036854775808) over () from mart.orders
function	select lead(id, -9223372036854775807 - 1) over () from mart.orders
function	select lag(id, '-9223372036854775808') over () from mart.orders
-- Resources: stopped where it runs
limits	select count(*) from range(10000000) a, range(10000000) b
limits	select * from range(1000000000000)
limits	select * from repeat(1, 1000000000000)
limits	with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t
limits	with recursive t(n) as (select 'a' union all select n || n from t) select max(length(n)) from t
limits	select len(range(200000000))
limits	select length(repeat('a', 4000000000))
limits	select length(repeat(repeat('a', 100000), 40000))
limits	select length(lpad('a', 2000000000, 'b'))
limits	select length(printf('%2000000000d', 1))
limits	select length(format('{:2000000000}', 1))
limits	select len(list_resize([1], 2000000000))
limits	select length(bitstring('1', 2000000000))
limits	select instr(repeat('a', 5000000), repeat('a', 2500000) || 'b')
limits	select length((repeat('9', 1000000)::bignum)::varchar)
limits	select length(json_pretty(repeat('[', 100000) || repeat(']', 100000)))
limits	select count(*) from json_tree(repeat('[', 100000) || repeat(']', 100000))
limits	select regexp_matches(repeat('a', 5000000), '((a{0,100}){0,10}){0,1}b')
limits	select repeat('a', 60) like repeat('%_a', 30) || 'b'
limits	select repeat('a', 60) ilike '%_a%_a%_a%_a%_a%_a%_a%_a%_a%_a%_a%_ab'
limits	select repeat('a', 100000) similar to repeat('(a?)', 100000)
limits	select list(a.range) from range(100000) a, range(100000) b
limits	select string_agg(repeat('a', 1000000), '') from range(100000)
limits	select array_agg(x) over (order by x) from range(100000) t(x)
limits	select list_sort(range(50000000))
limits	select max(i, 999999) from range(10000000) t(i)
limits	select histogram(i) from range(100000000) t(i)
limits	select count(*) from mart.orders a, mart.orders b, mart.orders c, mart.orders d, mart.orders e, mart.orders f
limits	select md5(repeat('a', 1000000000))
limits	select error('a message of my own')
-- Nothing at all
empty	
empty	;
empty	;;;
empty	-- x
empty	/* x */
empty	\n\t \n
syntax	select
syntax	select ((
syntax	selec 1
syntax	select * from
syntax	select 'open
syntax	select "open
syntax	select $$open
syntax	/* open
syntax	select ?, $1, $x
syntax	select 1 from a.b.c.d
syntax	select 1::decimal((select 1), 2)
syntax	select a.b.c.d(1)
