{# Fills the application's database with the data that the target `embedded` invents: equal vars give equal marts from either.
   `dbt run-operation seed_postgres --target postgres`. It makes the tables where there are none. Data that is there
   already stays, unless `--args '{replace: true}'` says otherwise. #}
{% macro seed_postgres(replace=false) %}
  {% if target.name != 'postgres' %}
    {% do exceptions.raise_compiler_error('seed_postgres fills the database of --target postgres, not of ' ~ target.name) %}
  {% endif %}
  {% do run_query("attach if not exists '' as application (type postgres, secret application)") %}

  {% if not run_query("from duckdb_schemas() where database_name = 'application' and schema_name = 'finance'") | length %}
    {% set schema = run_query("select content from read_text('postgres/schema.sql')")[0][0] %}
    {% do run_query("call postgres_execute('application', '" ~ adapter.escape_sql_string('begin;' ~ schema ~ 'commit') ~ "')") %}
    {% do run_query('call pg_clear_cache()') %}
  {% elif not replace and run_query('from application.finance.users limit 1') | length %}
    {% do log("The database has data, which stays. To replace all of it: --args '{replace: true}'", info=true) %}
    {% do return('') %}
  {% endif %}
  {% do load_sources_embedded() %}

  {% call statement('seed', auto_begin=False) %}
    begin;
    call postgres_execute('application', 'truncate finance.users cascade; truncate finance.clock');
    insert into application.finance.users (id, email)
      select distinct user_id, left(user_id::varchar, 8) || '@example.com' from finance.accounts;
    {% for table in source_tables() %}
      insert into application.finance.{{ table }} by name from finance.{{ table }};
    {% endfor %}
    commit;
    detach application
  {% endcall %}
{% endmacro %}
