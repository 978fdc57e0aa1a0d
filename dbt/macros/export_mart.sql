{# Phase 1 of the migration, `--vars '{marts_as: table}'`: marts are tables of the database at DUCKDB_PATH, as they have always
   been, and this post-hook of theirs writes the same rows beside it, into the file that an external model would have made. It
   runs in the model's transaction, so that the table stays as it was when the file cannot be written. #}
{% macro export_mart() %}
  {% if execute and config.get('materialized') == 'table' %}
    {% do write_to_file(this, mart_location(model), adapter.external_write_options(mart_location(model), render_write_options(config))) %}
  {% endif %}
{% endmacro %}


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
