{# What would make the run worthless is said before it replaces a file. #}
{% macro check_project() %}
  {% if var('martd_untested', 'hold') not in ['hold', 'publish'] %}
    {% do martd.fail("the var martd_untested is 'hold' or 'publish', not '" ~ var('martd_untested') ~ "'") %}
  {% endif %}
  {% do martd.check_locations() %}
  {% if martd.records() %}
    {% do martd.check_target() %}
  {% endif %}
{% endmacro %}


{# dbt is content when two models write one file, and the last one wins. #}
{% macro check_locations() %}
  {% set writers = {} %}
  {% for id, node in graph.nodes.items() %}
    {% set output = martd.output(node) %}
    {% if output %}
      {% set key = (output.name or output.location) | lower %}
      {% if key in writers %}
        {% do martd.fail(writers[key] ~ ' and ' ~ id ~ ' both write ' ~ output.location ~ ': give one of them another alias or location') %}
      {% endif %}
      {% do writers.update({key: id}) %}
      {% if output.warning %}
        {% do martd.say(id ~ ' ' ~ output.warning) %}
      {% endif %}
    {% endif %}
  {% endfor %}
{% endmacro %}


{# A record names files by their SHA-256, which DuckDB computes of local files, from 1.1 on. #}
{% macro check_target() %}
  {% set root = adapter.external_root() %}
  {% if root == '.' %}
    {% do martd.fail("the target '" ~ target.name ~ "' has no external_root: set it to PARQUET_DIR/mart in profiles.yml") %}
  {% endif %}
  {% if '://' in root %}
    {% do martd.fail('external_root is ' ~ root ~ ', and files that are not local cannot be hashed: ' ~ martd.instead()) %}
  {% endif %}
  {% if not run_query("select 1 from duckdb_functions() where function_name = 'sha256' and parameter_types = ['BLOB']").rows %}
    {% do martd.fail('this DuckDB cannot hash files: install duckdb 1.1 or newer, or ' ~ martd.instead()) %}
  {% endif %}
{% endmacro %}


{% macro instead() %}
  {{ return('run `martd publish --dbt-target target/` after dbt, with the var martd_targets: []') }}
{% endmacro %}
