{# The file or folder that a node writes, its `path` in external_root, and the mart `name` that martd makes of it. `reason` instead of
   a name: it is not served. `warning`: what its options will bring about. None for a node that writes no file. #}
{% macro output(node) %}
  {% if not martd.is_external(node) and not martd.is_exported(node) %}
    {{ return(none) }}
  {% endif %}
  {% set options = node.config.get('options') or {} %}
  {% set location = martd.location(node) %}
  {% set folder_options = [] %}
  {% for option in ['partition_by', 'per_thread_output', 'file_size_bytes'] if options.get(option) %}
    {% do folder_options.append(option) %}
  {% endfor %}
  {% set is_folder = folder_options | length > 0 %}
  {% set path = location[martd.root() | length:].lstrip('/') if location.startswith(martd.root()) else '' %}
  {% set file = location.split('/')[-1] %}
  {% set format = options.get('format') or node.config.get('format') or (file.split('.')[-1] if '.' in file else 'parquet') %}

  {% set reason = none %}
  {% if format | lower != 'parquet' %}
    {% set reason = 'martd serves Parquet' %}
  {% elif not path or '/' in path %}
    {% set reason = 'martd serves what lies directly in ' ~ martd.root() %}
  {% elif path.startswith(('_', '.', 'tmp_')) %}
    {% set reason = "martd serves no name that starts with '_', '.' or 'tmp_'" %}
  {% elif is_folder and path.endswith('.parquet') %}
    {% set reason = 'the name of a folder must not end in .parquet' %}
  {% elif not is_folder and not path.endswith('.parquet') %}
    {% set reason = 'the name of a file has to end in .parquet' %}
  {% endif %}
  {% set name = none if reason else path if is_folder else path[:-8] %}

  {% set warning = none %}
  {% if is_folder and not martd.is_set(options.get('overwrite')) and not martd.is_set(options.get('append')) %}
    {% if martd.is_set(options.get('overwrite_or_ignore')) %}
      {% set warning = 'with overwrite_or_ignore, which leaves old parts that a run fails for' %}
    {% else %}
      {% set warning = 'without overwrite or append, which fails when its folder is there' %}
    {% endif %}
    {% set warning = 'has ' ~ folder_options[0] ~ ' ' ~ warning ~ ': set overwrite: true in its options' %}
  {% endif %}
  {{ return({
    'location': location, 'path': path, 'format': format, 'is_folder': is_folder, 'name': name, 'reason': reason, 'warning': warning,
  }) }}
{% endmacro %}


{# Options go to DuckDB as they are: the text false is false, too. #}
{% macro is_set(option) %}
  {{ return(option is not none and option | string | lower != 'false') }}
{% endmacro %}


{% macro is_external(node) %}
  {{ return(node.resource_type == 'model' and node.config.materialized == 'external') }}
{% endmacro %}

{% macro is_exported(node) %}
  {{ return(
    node.resource_type in ['model', 'seed', 'snapshot']
    and node.config.materialized not in ['external', 'ephemeral']
    and 'martd.export(' in node.config.get('post-hook', []) | map(attribute='sql') | join
  ) }}
{% endmacro %}

{% macro location(node) %}
  {% set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) %}
  {{ return(render(node.config.get('location') or external_location(relation, node.config))) }}
{% endmacro %}
