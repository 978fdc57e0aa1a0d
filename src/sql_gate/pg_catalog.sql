-- The catalog that clients of PostgreSQL ask for, in a database that has no data: `{database}`, `{schema}` and
-- `{time_zone}` are filled in, then the marts. The names of its tables and macros are all that a statement of
-- the catalog may name beside DuckDB's own functions. Tables of `information_schema` begin with `is_`. Who
-- asks is one role, `martd`, with the number 10, which may connect and read.
-- What a martd never has is a table without rows.

CREATE TABLE pg_namespace AS SELECT oid::BIGINT AS oid, nspname, 10::BIGINT AS nspowner, NULL::VARCHAR[] AS nspacl
    FROM (VALUES (11, 'pg_catalog'), (13000, 'information_schema'), (2200, '{schema}')) n(oid, nspname);

CREATE VIEW pg_roles AS SELECT 10::BIGINT AS oid, 'martd' AS rolname, false AS rolsuper, true AS rolinherit, false AS rolcreaterole,
    false AS rolcreatedb, true AS rolcanlogin, false AS rolreplication, -1 AS rolconnlimit, NULL::VARCHAR AS rolpassword,
    NULL::TIMESTAMPTZ AS rolvaliduntil, false AS rolbypassrls, NULL::VARCHAR[] AS rolconfig;
CREATE VIEW pg_authid AS FROM pg_roles;
CREATE VIEW pg_user AS SELECT rolname AS usename, oid AS usesysid, false AS usecreatedb, false AS usesuper FROM pg_roles;
CREATE TABLE pg_auth_members (roleid BIGINT, member BIGINT, grantor BIGINT, admin_option BOOLEAN);
CREATE TABLE pg_group (groname VARCHAR, grosysid BIGINT, grolist BIGINT[]);
CREATE TABLE pg_db_role_setting (setdatabase BIGINT, setrole BIGINT, setconfig VARCHAR[]);
CREATE TABLE pg_shdescription (objoid BIGINT, classoid BIGINT, description VARCHAR);

CREATE VIEW pg_database AS SELECT 1::BIGINT AS oid, '{database}' AS datname, 10::BIGINT AS datdba, 6 AS "encoding", 'C' AS datcollate,
    'C' AS datctype, false AS datistemplate, true AS datallowconn, -1 AS datconnlimit, 16383::BIGINT AS datlastsysoid,
    0::BIGINT AS datfrozenxid, 0::BIGINT AS datminmxid, 1663::BIGINT AS dattablespace, NULL::VARCHAR[] AS datacl;

CREATE MACRO martd_settings() AS MAP {'server_version': '13.0', 'server_version_num': '130000', 'server_encoding': 'UTF8',
    'client_encoding': 'UTF8', 'standard_conforming_strings': 'on', 'search_path': '{schema}', 'timezone': '{time_zone}',
    'datestyle': 'ISO, YMD', 'intervalstyle': 'postgres', 'integer_datetimes': 'on', 'max_identifier_length': '63',
    'max_index_keys': '32', 'is_superuser': 'off', 'transaction_isolation': 'repeatable read',
    'default_transaction_isolation': 'repeatable read', 'transaction_read_only': 'on', 'default_transaction_read_only': 'on',
    'lc_collate': 'C', 'lc_ctype': 'C', 'jit': 'off', 'application_name': '', 'default_table_access_method': 'heap',
    'default_tablespace': '', 'statement_timeout': '0', 'lock_timeout': '0', 'idle_in_transaction_session_timeout': '60000',
    'client_min_messages': 'notice', 'extra_float_digits': '1', 'bytea_output': 'hex', 'block_size': '8192', 'row_security': 'on'};
CREATE VIEW pg_settings AS SELECT e.key AS name, e.value AS setting, NULL::VARCHAR AS unit, 'martd' AS category,
    NULL::VARCHAR AS short_desc, NULL::VARCHAR AS extra_desc, 'internal' AS context, 'string' AS vartype, 'default' AS source,
    NULL::VARCHAR AS min_val, NULL::VARCHAR AS max_val, NULL::VARCHAR[] AS enumvals, NULL::VARCHAR AS boot_val,
    NULL::VARCHAR AS reset_val, NULL::VARCHAR AS sourcefile, NULL::INTEGER AS sourceline, false AS pending_restart
    FROM (SELECT unnest(map_entries(martd_settings())) AS e);

-- As `martd` sends them: their number, name, size, category, elements, array, and name in SQL.
CREATE TABLE sent_types AS SELECT oid::BIGINT AS oid, typname, typlen::SMALLINT AS typlen, typcategory, typarray::BIGINT AS typarray, sql_name
    FROM (VALUES (16, 'bool', 1, 'B', 1000, 'boolean'), (17, 'bytea', -1, 'U', 1001, 'bytea'),
    (18, 'char', 1, 'S', 1002, '"char"'), (19, 'name', 64, 'S', 1003, 'name'), (20, 'int8', 8, 'N', 1016, 'bigint'),
    (21, 'int2', 2, 'N', 1005, 'smallint'), (23, 'int4', 4, 'N', 1007, 'integer'), (24, 'regproc', 4, 'N', 1008, 'regproc'),
    (25, 'text', -1, 'S', 1009, 'text'), (26, 'oid', 4, 'N', 1028, 'oid'), (114, 'json', -1, 'U', 199, 'json'),
    (700, 'float4', 4, 'N', 1021, 'real'), (701, 'float8', 8, 'N', 1022, 'double precision'),
    (705, 'unknown', -2, 'X', 0, 'unknown'), (1042, 'bpchar', -1, 'S', 1014, 'character'),
    (1043, 'varchar', -1, 'S', 1015, 'character varying'), (1082, 'date', 4, 'D', 1182, 'date'),
    (1083, 'time', 8, 'D', 1183, 'time without time zone'), (1114, 'timestamp', 8, 'D', 1115, 'timestamp without time zone'),
    (1184, 'timestamptz', 8, 'D', 1185, 'timestamp with time zone'), (1186, 'interval', 16, 'T', 1187, 'interval'),
    (1266, 'timetz', 12, 'D', 1270, 'time with time zone'), (1560, 'bit', -1, 'V', 1561, 'bit'),
    (1562, 'varbit', -1, 'V', 1563, 'bit varying'), (1700, 'numeric', -1, 'N', 1231, 'numeric'),
    (2205, 'regclass', 4, 'N', 2210, 'regclass'), (2206, 'regtype', 4, 'N', 2211, 'regtype'),
    (2950, 'uuid', 16, 'U', 2951, 'uuid'), (3802, 'jsonb', -1, 'U', 3807, 'jsonb')) t(oid, typname, typlen, typcategory, typarray, sql_name);
CREATE TABLE pg_type AS SELECT t.oid, t.typname, 11::BIGINT AS typnamespace, 10::BIGINT AS typowner, t.typlen,
    t.typlen BETWEEN 0 AND 8 AS typbyval, 'b' AS typtype, t.typcategory, t.oid IN (16, 25, 26, 701, 1184, 1186) AS typispreferred,
    true AS typisdefined, ',' AS typdelim, 0::BIGINT AS typrelid, t.typelem, t.typarray,
    if(t.typelem = 0, t.typname || 'in', 'array_in') AS typinput, if(t.typelem = 0, t.typname || 'out', 'array_out') AS typoutput,
    if(t.typelem = 0, t.typname || 'recv', 'array_recv') AS typreceive, if(t.typelem = 0, t.typname || 'send', 'array_send') AS typsend,
    '-' AS typmodin, '-' AS typmodout, '-' AS typanalyze, 'i' AS typalign, 'p' AS typstorage, false AS typnotnull,
    0::BIGINT AS typbasetype, -1 AS typtypmod, 0 AS typndims, if(t.typcategory = 'S', 100, 0)::BIGINT AS typcollation,
    NULL::VARCHAR AS typdefaultbin, NULL::VARCHAR AS typdefault, NULL::VARCHAR[] AS typacl
    FROM (SELECT oid, typname, typlen, typcategory, 0::BIGINT AS typelem, typarray FROM sent_types
        UNION ALL SELECT typarray, '_' || typname, -1, 'A', oid, 0 FROM sent_types WHERE typarray > 0) t;
CREATE TABLE pg_enum (oid BIGINT, enumtypid BIGINT, enumsortorder FLOAT, enumlabel VARCHAR);
CREATE TABLE pg_range (rngtypid BIGINT, rngsubtype BIGINT, rngmultitypid BIGINT, rngcollation BIGINT, rngsubopc BIGINT, rngcanonical VARCHAR, rngsubdiff VARCHAR);
CREATE VIEW pg_collation AS SELECT 100::BIGINT AS oid, 'default' AS collname, 11::BIGINT AS collnamespace, 10::BIGINT AS collowner,
    'd' AS collprovider, true AS collisdeterministic, -1 AS collencoding, '' AS collcollate, '' AS collctype, NULL::VARCHAR AS collversion;
CREATE VIEW pg_am AS SELECT 2::BIGINT AS oid, 'heap' AS amname, 'heap_tableam_handler' AS amhandler, 't' AS amtype;

-- The marts.
CREATE TABLE marts (oid BIGINT, name VARCHAR, columns SMALLINT);
CREATE TABLE mart_columns (mart BIGINT, name VARCHAR, ty BIGINT, size SMALLINT, number SMALLINT, modifier INTEGER);
CREATE TABLE mart_descriptions (mart BIGINT, number INTEGER, description VARCHAR);
CREATE VIEW pg_class AS SELECT oid::BIGINT AS oid, relname, relnamespace::BIGINT AS relnamespace, 0::BIGINT AS reltype, 0::BIGINT AS reloftype,
    10::BIGINT AS relowner, 2::BIGINT AS relam, 0::BIGINT AS relfilenode, 0::BIGINT AS reltablespace, 0 AS relpages, -1::FLOAT AS reltuples,
    0 AS relallvisible, 0::BIGINT AS reltoastrelid, false AS relhasindex, false AS relisshared, 'p' AS relpersistence, 'r' AS relkind,
    relnatts::SMALLINT AS relnatts, 0::SMALLINT AS relchecks, false AS relhasrules, false AS relhastriggers, false AS relhassubclass,
    false AS relrowsecurity, false AS relforcerowsecurity, true AS relispopulated, 'd' AS relreplident, false AS relispartition,
    0::BIGINT AS relrewrite, 0::BIGINT AS relfrozenxid, 0::BIGINT AS relminmxid, NULL::VARCHAR[] AS relacl, NULL::VARCHAR[] AS reloptions,
    NULL::VARCHAR AS relpartbound
    FROM (SELECT oid, name AS relname, 2200 AS relnamespace, columns AS relnatts FROM marts
        UNION ALL VALUES (1247, 'pg_type', 11, 0), (1249, 'pg_attribute', 11, 0), (1255, 'pg_proc', 11, 0), (1259, 'pg_class', 11, 0),
            (1262, 'pg_database', 11, 0), (2604, 'pg_attrdef', 11, 0), (2606, 'pg_constraint', 11, 0), (2610, 'pg_index', 11, 0),
            (2615, 'pg_namespace', 11, 0));
CREATE VIEW pg_attribute AS SELECT mart AS attrelid, name AS attname, ty AS atttypid, -1 AS attstattarget, size AS attlen,
    number AS attnum, 0 AS attndims, -1 AS attcacheoff, modifier AS atttypmod, false AS attbyval, 'p' AS attstorage, 'i' AS attalign,
    false AS attnotnull, false AS atthasdef, false AS atthasmissing, '' AS attidentity, '' AS attgenerated, false AS attisdropped,
    true AS attislocal, 0 AS attinhcount, 0::BIGINT AS attcollation, NULL::VARCHAR[] AS attacl, NULL::VARCHAR[] AS attoptions,
    NULL::VARCHAR[] AS attfdwoptions, NULL::VARCHAR AS attmissingval FROM mart_columns;
CREATE VIEW pg_description AS SELECT mart AS objoid, 1259::BIGINT AS classoid, number AS objsubid, description FROM mart_descriptions;

CREATE TABLE pg_attrdef (oid BIGINT, adrelid BIGINT, adnum SMALLINT, adbin VARCHAR);
CREATE TABLE pg_constraint (oid BIGINT, conname VARCHAR, connamespace BIGINT, contype VARCHAR, condeferrable BOOLEAN,
    condeferred BOOLEAN, convalidated BOOLEAN, conrelid BIGINT, contypid BIGINT, conindid BIGINT, conparentid BIGINT,
    confrelid BIGINT, confupdtype VARCHAR, confdeltype VARCHAR, confmatchtype VARCHAR, conislocal BOOLEAN,
    coninhcount INTEGER, connoinherit BOOLEAN, conkey SMALLINT[], confkey SMALLINT[], conpfeqop BIGINT[],
    conppeqop BIGINT[], conffeqop BIGINT[], conexclop BIGINT[], conbin VARCHAR);
CREATE TABLE pg_index (indexrelid BIGINT, indrelid BIGINT, indnatts SMALLINT, indnkeyatts SMALLINT, indisunique BOOLEAN,
    indisprimary BOOLEAN, indisexclusion BOOLEAN, indimmediate BOOLEAN, indisclustered BOOLEAN, indisvalid BOOLEAN,
    indcheckxmin BOOLEAN, indisready BOOLEAN, indislive BOOLEAN, indisreplident BOOLEAN, indkey SMALLINT[],
    indcollation BIGINT[], indclass BIGINT[], indoption SMALLINT[], indexprs VARCHAR, indpred VARCHAR);
CREATE TABLE pg_indexes (schemaname VARCHAR, tablename VARCHAR, indexname VARCHAR, tablespace VARCHAR, indexdef VARCHAR);
CREATE TABLE pg_opclass (oid BIGINT, opcmethod BIGINT, opcname VARCHAR, opcnamespace BIGINT, opcintype BIGINT, opcdefault BOOLEAN);
CREATE TABLE pg_inherits (inhrelid BIGINT, inhparent BIGINT, inhseqno INTEGER, inhdetachpending BOOLEAN);
CREATE TABLE pg_partitioned_table (partrelid BIGINT, partstrat VARCHAR, partnatts SMALLINT, partdefid BIGINT, partattrs SMALLINT[], partexprs VARCHAR);
CREATE TABLE pg_depend (classid BIGINT, objid BIGINT, objsubid INTEGER, refclassid BIGINT, refobjid BIGINT, refobjsubid INTEGER, deptype VARCHAR);
CREATE TABLE pg_proc (oid BIGINT, proname VARCHAR, pronamespace BIGINT, proowner BIGINT, prolang BIGINT, prokind VARCHAR,
    proisagg BOOLEAN, proretset BOOLEAN, provolatile VARCHAR, pronargs SMALLINT, prorettype BIGINT, proargtypes BIGINT[],
    proallargtypes BIGINT[], proargmodes VARCHAR[], proargnames VARCHAR[], prosrc VARCHAR, proacl VARCHAR[]);
CREATE TABLE pg_language (oid BIGINT, lanname VARCHAR, lanowner BIGINT, lanispl BOOLEAN, lanpltrusted BOOLEAN);
CREATE TABLE pg_trigger (oid BIGINT, tgrelid BIGINT, tgparentid BIGINT, tgname VARCHAR, tgfoid BIGINT, tgtype SMALLINT,
    tgenabled VARCHAR, tgisinternal BOOLEAN, tgconstraint BIGINT);
CREATE TABLE pg_rewrite (oid BIGINT, rulename VARCHAR, ev_class BIGINT, ev_type VARCHAR, ev_enabled VARCHAR, is_instead BOOLEAN);
CREATE TABLE pg_policy (oid BIGINT, polname VARCHAR, polrelid BIGINT, polcmd VARCHAR, polpermissive BOOLEAN, polroles BIGINT[],
    polqual VARCHAR, polwithcheck VARCHAR);
CREATE TABLE pg_policies (schemaname VARCHAR, tablename VARCHAR, policyname VARCHAR);
CREATE TABLE pg_statistic_ext (oid BIGINT, stxrelid BIGINT, stxname VARCHAR, stxnamespace BIGINT, stxowner BIGINT,
    stxstattarget INTEGER, stxkeys SMALLINT[], stxkind VARCHAR[]);
CREATE TABLE pg_publication (oid BIGINT, pubname VARCHAR, pubowner BIGINT, puballtables BOOLEAN);
CREATE TABLE pg_publication_rel (oid BIGINT, prpubid BIGINT, prrelid BIGINT);
CREATE TABLE pg_replication_slots (slot_name VARCHAR, plugin VARCHAR, slot_type VARCHAR, active BOOLEAN);
CREATE TABLE pg_extension (oid BIGINT, extname VARCHAR, extowner BIGINT, extnamespace BIGINT, extrelocatable BOOLEAN,
    extversion VARCHAR, extconfig BIGINT[], extcondition VARCHAR[]);
CREATE TABLE pg_available_extensions (name VARCHAR, default_version VARCHAR, installed_version VARCHAR, comment VARCHAR);
CREATE VIEW pg_tablespace AS SELECT 1663::BIGINT AS oid, 'pg_default' AS spcname, 10::BIGINT AS spcowner, NULL::VARCHAR[] AS spcacl,
    NULL::VARCHAR[] AS spcoptions;
CREATE TABLE pg_sequence (seqrelid BIGINT, seqtypid BIGINT, seqstart BIGINT, seqincrement BIGINT, seqmax BIGINT, seqmin BIGINT, seqcache BIGINT, seqcycle BOOLEAN);
CREATE TABLE pg_sequences (schemaname VARCHAR, sequencename VARCHAR);
CREATE TABLE pg_foreign_data_wrapper (oid BIGINT, fdwname VARCHAR, fdwowner BIGINT, fdwoptions VARCHAR[]);
CREATE TABLE pg_foreign_server (oid BIGINT, srvname VARCHAR, srvowner BIGINT, srvfdw BIGINT, srvoptions VARCHAR[]);
CREATE TABLE pg_foreign_table (ftrelid BIGINT, ftserver BIGINT, ftoptions VARCHAR[]);
CREATE TABLE pg_views (schemaname VARCHAR, viewname VARCHAR, viewowner VARCHAR, definition VARCHAR);
CREATE TABLE pg_matviews (schemaname VARCHAR, matviewname VARCHAR, matviewowner VARCHAR, definition VARCHAR);
CREATE TABLE pg_stat_activity (datid BIGINT, datname VARCHAR, pid INTEGER, usename VARCHAR, application_name VARCHAR,
    state VARCHAR, query VARCHAR);
CREATE TABLE pg_locks (locktype VARCHAR, relation BIGINT, pid INTEGER, mode VARCHAR, granted BOOLEAN);

CREATE VIEW pg_tables AS SELECT n.nspname AS schemaname, c.relname AS tablename, 'martd' AS tableowner, NULL::VARCHAR AS tablespace,
    false AS hasindexes, false AS hasrules, false AS hastriggers, false AS rowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace;
CREATE VIEW pg_stat_user_tables AS SELECT c.oid AS relid, n.nspname AS schemaname, c.relname, NULL::BIGINT AS seq_scan,
    NULL::BIGINT AS n_live_tup, NULL::BIGINT AS n_dead_tup, NULL::TIMESTAMPTZ AS last_analyze
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.oid = 2200;

CREATE VIEW is_schemata AS SELECT '{database}' AS catalog_name, nspname AS schema_name, 'martd' AS schema_owner FROM pg_namespace;
CREATE VIEW is_tables AS SELECT '{database}' AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
    'BASE TABLE' AS table_type, NULL::VARCHAR AS self_referencing_column_name, 'NO' AS is_insertable_into, 'NO' AS is_typed, d.description AS table_comment
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = 0
    WHERE n.oid = 2200;
CREATE VIEW is_columns AS SELECT '{database}' AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
    a.attname AS column_name, a.attnum::INTEGER AS ordinal_position, NULL::VARCHAR AS column_default, 'YES' AS is_nullable,
    coalesce(s.sql_name, 'ARRAY') AS data_type, NULL::INTEGER AS character_maximum_length,
    CASE WHEN a.atttypmod > 0 THEN (a.atttypmod - 4) >> 16 WHEN s.typname = 'int2' THEN 16 WHEN s.typname = 'int4' THEN 32
        WHEN s.typname = 'int8' THEN 64 WHEN s.typname = 'float4' THEN 24 WHEN s.typname = 'float8' THEN 53 END AS numeric_precision,
    CASE WHEN a.atttypmod > 0 THEN (a.atttypmod - 4) & 65535 WHEN s.typname LIKE 'int_' THEN 0 END AS numeric_scale,
    CASE WHEN s.typcategory IN ('D', 'T') AND s.typname <> 'date' THEN 6 END AS datetime_precision,
    '{database}' AS udt_catalog, 'pg_catalog' AS udt_schema, t.typname AS udt_name, a.attnum::VARCHAR AS dtd_identifier,
    'NO' AS is_identity, 'NEVER' AS is_generated, 'NO' AS is_updatable, d.description AS column_comment
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN sent_types s ON s.oid = a.atttypid
    LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = a.attnum;
CREATE VIEW is_views AS SELECT table_catalog, table_schema, table_name, NULL::VARCHAR AS view_definition FROM is_tables WHERE false;
CREATE TABLE is_table_constraints (constraint_catalog VARCHAR, constraint_schema VARCHAR, constraint_name VARCHAR, table_catalog VARCHAR,
    table_schema VARCHAR, table_name VARCHAR, constraint_type VARCHAR, is_deferrable VARCHAR, initially_deferred VARCHAR);
CREATE TABLE is_key_column_usage (constraint_catalog VARCHAR, constraint_schema VARCHAR, constraint_name VARCHAR, table_catalog VARCHAR,
    table_schema VARCHAR, table_name VARCHAR, column_name VARCHAR, ordinal_position INTEGER, position_in_unique_constraint INTEGER);
CREATE TABLE is_constraint_column_usage (table_schema VARCHAR, table_name VARCHAR, column_name VARCHAR, constraint_schema VARCHAR, constraint_name VARCHAR);
CREATE TABLE is_referential_constraints (constraint_catalog VARCHAR, constraint_schema VARCHAR, unique_constraint_catalog VARCHAR, constraint_name VARCHAR, unique_constraint_schema VARCHAR,
    unique_constraint_name VARCHAR, match_option VARCHAR, update_rule VARCHAR, delete_rule VARCHAR);
CREATE TABLE is_routines (specific_schema VARCHAR, specific_name VARCHAR, routine_schema VARCHAR, routine_name VARCHAR, routine_type VARCHAR);
CREATE TABLE is_parameters (specific_schema VARCHAR, specific_name VARCHAR, parameter_name VARCHAR, ordinal_position INTEGER);
CREATE TABLE is_triggers (trigger_schema VARCHAR, trigger_name VARCHAR, event_object_schema VARCHAR, event_object_table VARCHAR);
CREATE TABLE is_sequences (sequence_schema VARCHAR, sequence_name VARCHAR);
CREATE VIEW is_table_privileges AS SELECT 'martd' AS grantor, 'martd' AS grantee, table_catalog, table_schema, table_name,
    'SELECT' AS privilege_type, 'NO' AS is_grantable FROM is_tables;

-- What macros look up has names that no argument of theirs can have, for an argument is looked up there, too.
CREATE VIEW martd_classes AS SELECT c.oid AS _class_oid, c.relname AS _class_name, n.nspname AS _class_schema
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace;
CREATE VIEW martd_namespaces AS SELECT oid AS _space_oid, nspname AS _space_name FROM pg_namespace;
CREATE VIEW martd_descriptions AS SELECT objoid AS _object_oid, objsubid AS _object_part, description AS _object_text FROM pg_description;
CREATE TABLE martd_types AS SELECT t.oid AS _type_oid, t.typname AS _type_name, coalesce(s.sql_name, e.sql_name || '[]') AS _type_sql
    FROM pg_type t LEFT JOIN sent_types s ON s.oid = t.oid LEFT JOIN sent_types e ON e.oid = t.typelem;

CREATE MACRO version() AS 'PostgreSQL 13.0 (martd)';
CREATE MACRO current_user() AS 'martd';
CREATE MACRO session_user() AS 'martd';
CREATE MACRO "user"() AS 'martd';
CREATE MACRO current_role() AS 'martd';
CREATE MACRO current_database() AS '{database}';
CREATE MACRO current_catalog() AS '{database}';
CREATE MACRO current_schema() AS '{schema}';
CREATE MACRO current_schemas(_implicit) AS if(_implicit, ['pg_catalog', '{schema}'], ['{schema}']);
CREATE MACRO current_setting(_name) AS coalesce(martd_settings()[lower(_name)], error('there is no setting "' || _name || '"')),
    (_name, _missing) AS martd_settings()[lower(_name)];
CREATE MACRO set_config(_name, _value, _local) AS _value::VARCHAR;
CREATE MACRO pg_backend_pid() AS 1;
CREATE MACRO pg_is_in_recovery() AS false;
CREATE MACRO pg_postmaster_start_time() AS NULL::TIMESTAMPTZ;
CREATE MACRO txid_current() AS 1::BIGINT;
CREATE MACRO inet_server_addr() AS NULL::VARCHAR;
CREATE MACRO inet_server_port() AS NULL::INTEGER;
CREATE MACRO inet_client_addr() AS NULL::VARCHAR;
CREATE MACRO inet_client_port() AS NULL::INTEGER;
CREATE MACRO pg_my_temp_schema() AS 0::BIGINT;
CREATE MACRO pg_is_other_temp_schema(_oid) AS false;
CREATE MACRO pg_client_encoding() AS 'UTF8';
CREATE MACRO pg_encoding_to_char(_number) AS if(_number = 6, 'UTF8', '');
CREATE MACRO pg_char_to_encoding(_name) AS if(_name = 'UTF8', 6, -1);
CREATE MACRO pg_get_userbyid(_oid) AS if(_oid = 10, 'martd', 'unknown (OID=' || _oid || ')');
CREATE MACRO pg_table_is_visible(_oid) AS _oid IS NOT NULL;
CREATE MACRO pg_type_is_visible(_oid) AS _oid IS NOT NULL;
CREATE MACRO pg_function_is_visible(_oid) AS _oid IS NOT NULL;
CREATE MACRO pg_collation_is_visible(_oid) AS _oid IS NOT NULL;
CREATE MACRO pg_relation_is_publishable(_oid) AS false;
CREATE MACRO pg_get_expr(_tree, _oid) AS NULL::VARCHAR, (_tree, _oid, _pretty) AS NULL::VARCHAR;
CREATE MACRO pg_get_partkeydef(_oid) AS NULL::VARCHAR;
CREATE MACRO pg_get_constraintdef(_oid) AS NULL::VARCHAR, (_oid, _pretty) AS NULL::VARCHAR;
CREATE MACRO pg_get_indexdef(_oid) AS NULL::VARCHAR, (_oid, _column, _pretty) AS NULL::VARCHAR;
CREATE MACRO pg_get_viewdef(_oid) AS NULL::VARCHAR, (_oid, _pretty) AS NULL::VARCHAR;
CREATE MACRO pg_get_triggerdef(_oid) AS NULL::VARCHAR, (_oid, _pretty) AS NULL::VARCHAR;
CREATE MACRO pg_get_ruledef(_oid) AS NULL::VARCHAR, (_oid, _pretty) AS NULL::VARCHAR;
CREATE MACRO pg_get_functiondef(_oid) AS NULL::VARCHAR;
CREATE MACRO pg_get_function_result(_oid) AS NULL::VARCHAR;
CREATE MACRO pg_get_function_arguments(_oid) AS NULL::VARCHAR;
CREATE MACRO pg_get_function_identity_arguments(_oid) AS NULL::VARCHAR;
CREATE MACRO pg_get_statisticsobjdef_columns(_oid) AS NULL::VARCHAR;
CREATE MACRO pg_get_serial_sequence(_table, _column) AS NULL::VARCHAR;
CREATE MACRO pg_tablespace_location(_oid) AS '';
CREATE MACRO pg_relation_size(_oid) AS 0::BIGINT;
CREATE MACRO pg_table_size(_oid) AS 0::BIGINT;
CREATE MACRO pg_indexes_size(_oid) AS 0::BIGINT;
CREATE MACRO pg_total_relation_size(_oid) AS 0::BIGINT;
CREATE MACRO pg_database_size(_oid) AS 0::BIGINT;
CREATE MACRO pg_stat_get_numscans(_oid) AS 0::BIGINT;
CREATE MACRO obj_description(_oid) AS (SELECT any_value(_object_text) FROM martd_descriptions WHERE _object_oid = _oid AND _object_part = 0),
    (_oid, _catalog) AS (SELECT any_value(_object_text) FROM martd_descriptions WHERE _object_oid = _oid AND _object_part = 0 AND _catalog = 'pg_class');
CREATE MACRO col_description(_oid, _number) AS (SELECT any_value(_object_text) FROM martd_descriptions
    WHERE _object_oid = _oid AND _object_part = _number AND _number > 0);
CREATE MACRO shobj_description(_oid, _catalog) AS NULL::VARCHAR;
CREATE MACRO has_table_privilege(_table, _what) AS lower(_what) = 'select', (_user, _table, _what) AS lower(_what) = 'select';
CREATE MACRO has_column_privilege(_table, _column, _what) AS lower(_what) = 'select', (_user, _table, _column, _what) AS lower(_what) = 'select';
CREATE MACRO has_any_column_privilege(_table, _what) AS lower(_what) = 'select', (_user, _table, _what) AS lower(_what) = 'select';
CREATE MACRO has_schema_privilege(_schema, _what) AS lower(_what) = 'usage', (_user, _schema, _what) AS lower(_what) = 'usage';
CREATE MACRO has_database_privilege(_database, _what) AS lower(_what) = 'connect', (_user, _database, _what) AS lower(_what) = 'connect';
CREATE MACRO has_function_privilege(_function, _what) AS true, (_user, _function, _what) AS true;
CREATE MACRO pg_has_role(_role, _what) AS true, (_user, _role, _what) AS true;
CREATE MACRO quote_ident(_name) AS if(regexp_full_match(_name, '[a-z_][a-z0-9_$]*'), _name, '"' || replace(_name, '"', '""') || '"');
CREATE MACRO quote_literal(_text) AS '''' || replace(_text, '''', '''''') || '''';
CREATE MACRO parse_ident(_name) AS list_transform(regexp_extract_all(_name, '"(?:[^"]|"")*"|[^".]+'),
    lambda part: if(part[1] = '"', replace(part[2:-2], '""', '"'), lower(part)));
CREATE MACRO format(_form) AS _form,
    (_form, _a) AS regexp_replace(_form, '%[sI]', if(contains(_form, '%I'), quote_ident(_a), _a)),
    (_form, _a, _b) AS regexp_replace(regexp_replace(_form, '%[sI]', if(contains(_form, '%I'), quote_ident(_a), _a)),
        '%[sI]', if(contains(_form, '%I'), quote_ident(_b), _b));
CREATE MACRO array_lower(_list, _dimension) AS if(len(_list) > 0, 1, NULL);
CREATE MACRO array_upper(_list, _dimension) AS nullif(len(_list), 0);
CREATE MACRO array_length(_list, _dimension) AS nullif(len(_list), 0);
CREATE MACRO to_regtype(_name) AS (SELECT min(_type_oid) FROM martd_types
    WHERE _type_name = replace(lower(_name), 'pg_catalog.', '') OR _type_sql = lower(_name));
CREATE MACRO to_regclass(_name) AS (SELECT min(_class_oid) FROM martd_classes WHERE _class_name = parse_ident(_name)[-1]
    AND (len(parse_ident(_name)) = 1 OR _class_schema = parse_ident(_name)[-2]));
CREATE MACRO to_regnamespace(_name) AS (SELECT min(_space_oid) FROM martd_namespaces WHERE _space_name = parse_ident(_name)[-1]);
CREATE MACRO to_regrole(_name) AS if(_name = 'martd', 10, NULL);
CREATE MACRO format_type(_oid, _modifier) AS (SELECT any_value(if(_type_name = 'numeric' AND _modifier > 0,
        'numeric(' || ((_modifier - 4) >> 16) || ',' || ((_modifier - 4) & 65535) || ')', _type_sql))
    FROM martd_types WHERE _type_oid = _oid);
-- Casts to and from names. A text that is a number is that number.
CREATE MACRO oid_of_regclass(_name) AS coalesce(try_cast(_name AS BIGINT), to_regclass(_name::VARCHAR));
CREATE MACRO oid_of_regtype(_name) AS coalesce(try_cast(_name AS BIGINT), to_regtype(_name::VARCHAR));
CREATE MACRO oid_of_regnamespace(_name) AS coalesce(try_cast(_name AS BIGINT), to_regnamespace(_name::VARCHAR));
CREATE MACRO oid_of_regrole(_name) AS coalesce(try_cast(_name AS BIGINT), to_regrole(_name::VARCHAR));
CREATE MACRO name_of_regclass(_oid) AS coalesce((SELECT any_value(quote_ident(_class_name)) FROM martd_classes WHERE _class_oid = _oid), nullif(_oid, 0)::VARCHAR, '-');
CREATE MACRO name_of_regtype(_oid) AS if(_oid = 0, '-', format_type(_oid, NULL));
CREATE MACRO name_of_regnamespace(_oid) AS (SELECT any_value(quote_ident(_space_name)) FROM martd_namespaces WHERE _space_oid = _oid);
CREATE MACRO name_of_regrole(_oid) AS pg_get_userbyid(_oid);
CREATE MACRO pg_matches_case(_text, _pattern) AS regexp_matches(_text, _pattern);
CREATE MACRO pg_matches(_text, _pattern) AS regexp_matches(_text, _pattern, 'i');
CREATE MACRO _pg_expandarray(_list) AS unnest(list_transform(_list, lambda x, n: {'x': x, 'n': n}));
CREATE MACRO pg_get_keywords() AS TABLE SELECT * FROM (VALUES ('select', 'R', 'reserved'), ('from', 'R', 'reserved'), ('where', 'R', 'reserved'),
    ('limit', 'R', 'reserved'), ('order', 'R', 'reserved'), ('group', 'R', 'reserved'), ('qualify', 'R', 'reserved')) k(word, catcode, catdesc);
CREATE MACRO string_to_array_rows(_text, _separator) AS TABLE SELECT string_split(_text, _separator);
CREATE MACRO pg_partition_ancestors(_oid) AS TABLE SELECT _oid::BIGINT AS relid WHERE false;
CREATE MACRO pg_listening_channels() AS TABLE SELECT NULL::VARCHAR AS pg_listening_channels WHERE false;
CREATE MACRO pg_show_all_settings() AS TABLE FROM pg_settings;
