{# DuckDB has no mkdir, but a partitioned COPY makes its directory, one level at a time, and with no rows it leaves nothing in it.
   What exists stays as it is. #}
{% macro make_directory(path) %}
  {% if '://' not in path %}
    {% set parts = path.split('/') %}
    {% for depth in range(1, parts | length + 1) if parts[depth - 1] not in ['', '.', '..'] %}
      {% do run_query(
        'copy (select 1 as a, 2 as b where false) to ' ~ martd.quoted(parts[:depth] | join('/'))
        ~ ' (format parquet, partition_by (a), overwrite_or_ignore)'
      ) %}
    {% endfor %}
  {% endif %}
{% endmacro %}
