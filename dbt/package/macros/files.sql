{# The files that a node's build left: `files` as the record names them, or a `problem` that keeps martd from vouching for them.
   DuckDB may cut a file's time to whole seconds, so what is compared leaves room for that. #}
{% macro files(node, output, result, present) %}
  {% set ran = result.timing | selectattr('name', 'equalto', 'execute') | first %}
  {% set started, ended = martd.epoch(ran.started_at), martd.epoch(ran.completed_at) %}
  {% set keeps_parts = martd.is_set((node.config.get('options') or {}).get('append')) %}
  {% set files, left = [], [] %}
  {% for path, size in present.items()
    if path == output.path or output.is_folder and path.startswith(output.path ~ '/') %}
    {% if size > 1073741824 %}
      {{ return({'problem': path ~ ' has more than 1 GiB, too much for DuckDB to hash: ' ~ martd.instead()}) }}
    {% endif %}
    {% set row = run_query(
      'select size, sha256(content), epoch(last_modified) from read_blob(' ~ martd.quoted(martd.root() ~ path) ~ ')'
    ).rows[0] %}
    {% set written = row[2] | float %}
    {% if written > ended + 1 %}
      {{ return({'problem': path ~ ' was changed after ' ~ node.unique_id ~ ' had written it: build it again'}) }}
    {% endif %}
    {% if output.is_folder and not keeps_parts and written + 1 <= started %}
      {% do left.append(path) %}
    {% else %}
      {% do files.append({'path': path, 'bytes': row[0] | int, 'sha256': row[1]}) %}
    {% endif %}
  {% endfor %}
  {% if not files %}
    {{ return({'problem': node.unique_id ~ ' has left no new file at ' ~ output.location}) }}
  {% endif %}
  {# Models and tests that read this one saw their rows: without them martd would serve another mart than they are of. #}
  {% if left %}
    {{ return({'problem': left[0] ~ ' is not of this run' ~ martd.and_more(left) ~ ', and what reads ' ~ node.unique_id
      ~ ' has its rows: set overwrite: true in its options (append: true, if old parts are to stay), and build it again with what reads it'}) }}
  {% endif %}
  {{ return({'files': files}) }}
{% endmacro %}


{# Says so when there is a directory beside a mart's file, or a file beside its directory: martd serves neither. #}
{% macro beside(output, present) %}
  {% set name = output.name %}
  {% set file, folder = name ~ '.parquet', name ~ '/' %}
  {% for path in present if file in present and path.startswith(folder) %}
    {{ return(file ~ ' and ' ~ folder ~ ' are both there: remove ' ~ (file if output.is_folder else folder)) }}
  {% endfor %}
  {{ return(none) }}
{% endmacro %}


{# All Parquet files in external_root, by their paths in it, with their sizes. `tmp_*` is what DuckDB has not finished. #}
{% macro present_files() %}
  {% set present = {} %}
  {% set pattern = martd.root() ~ '**/*.parquet' %}
  {% if martd.exists(pattern) %}
    {% for file, size in run_query('select filename, size from read_blob(' ~ martd.quoted(pattern) ~ ') order by 1').rows %}
      {% if not file.split('/')[-1].startswith('tmp_') %}
        {% do present.update({file[martd.root() | length:]: size}) %}
      {% endif %}
    {% endfor %}
  {% endif %}
  {{ return(present) }}
{% endmacro %}

{% macro exists(pattern) %}
  {{ return(run_query('select 1 from glob(' ~ martd.quoted(pattern) ~ ') limit 1') | length > 0) }}
{% endmacro %}

{% macro root() %}
  {{ return(adapter.external_root().rstrip('/') ~ '/') }}
{% endmacro %}
