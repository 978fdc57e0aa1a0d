{# Copies the application's tables. They lie in a schema with the source's name; what is no source is not read.

   All copies are one transaction of PostgreSQL, REPEATABLE READ and READ ONLY, because they are one of DuckDB's. Scans by ctid
   would spread a table over several connections that have to be handed the snapshot, which a pooler in between breaks. #}
{% macro load_sources_postgres() %}
  {% set copies = [] %}
  {% for table in source_tables() %}
    {% do copies.append('create or replace table finance.' ~ table ~ ' as from application.finance.' ~ table) %}
  {% endfor %}
  {% call statement('copy', auto_begin=False) %}
    set pg_use_ctid_scan = false;
    attach '' as application (type postgres, secret application, read_only);
    create schema if not exists finance;
    begin;
    {{ copies | join(';\n    ') }};
    commit;
    detach application
  {% endcall %}
{% endmacro %}

{# In the order of the project's file, in which no table refers to a later one. #}
{% macro source_tables() %}
  {{ return(graph.sources.values() | selectattr('source_name', 'equalto', 'finance') | map(attribute='name') | list) }}
{% endmacro %}
