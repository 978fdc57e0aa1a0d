{# Phase 1 of the migration, `--vars '{marts_as: table}'`: marts are tables of the database at DUCKDB_PATH, as they have always
   been, and martd.export() writes the same rows beside it. #}


{# dbt renders the project's file before it knows the vars' values there, so that a wrong one would be found late, if at all. #}
{% macro check_vars() %}
  {% if var('marts_as') not in ['external', 'table'] %}
    {% do exceptions.raise_compiler_error("vars: marts_as is 'external' or 'table' (got '" ~ var('marts_as') ~ "')") %}
  {% endif %}
{% endmacro %}


{# The old file has marts and nothing else. Elsewhere the sources go with the database. #}
{% macro drop_sources() %}
  {% if execute and var('marts_as') == 'table' %}
    {% do run_query('drop schema if exists finance cascade') %}
  {% endif %}
{% endmacro %}
