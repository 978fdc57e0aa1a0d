{# Relations for the files that this run reads and does not build, so that a part of a project can run in a database that lacks
   them, `:memory:` too. It does what dbt-duckdb's register_upstream_external_models does, which stops at a file that is not
   there yet and shows the row of NULLs that stands for a mart without rows. #}
{% macro register_upstream() %}
  {% for id in martd.upstream() %}
    {% set node = graph.nodes[id] %}
    {% set output = martd.output(node) %}
    {% if output %}
      {% set relation = api.Relation.create(
        database=node.database, schema=node.schema, identifier=node.alias, type='view' if martd.is_external(node) else 'table'
      ) %}
      {% set pattern = adapter.external_read_location(output.location, dict(node.config.get('options') or {})) %}
      {% if martd.exists(pattern) and (martd.is_external(node) or not load_cached_relation(relation)) %}
        {% set source = martd.quoted(pattern) %}
        {% set rows = run_query('from ' ~ source ~ ' limit 2').rows %}
        {% set is_empty = rows | length == 1 and rows[0] | reject('none') | list | length == 0 %}
        {% do run_query('create schema if not exists ' ~ relation.without_identifier()) %}
        {% do run_query(
          ('create or replace view ' if martd.is_external(node) else 'create table ') ~ relation
          ~ ' as from ' ~ source ~ (' limit 0' if is_empty else '')
        ) %}
        {% do adapter.cache_added(relation) %}
      {% endif %}
    {% endif %}
  {% endfor %}
{% endmacro %}


{# The ids of the nodes that are read and not built. A selected node reads what its ephemeral parents read, and a unit test what its
   model reads. `dbt retry` does not say what it selects: then it may be any. #}
{% macro upstream() %}
  {% if not selected_resources %}
    {{ return(graph.nodes | list) }}
  {% endif %}
  {% set readers = [] %}
  {% for id in selected_resources %}
    {% set parts = id.split('.') %}
    {% do readers.append('model.' ~ parts[1] ~ '.' ~ parts[2] if parts[0] == 'unit_test' else id) %}
  {% endfor %}
  {% set upstream = [] %}
  {# `readers` grows while it is walked. #}
  {% for reader in readers if reader in graph.nodes %}
    {% for id in graph.nodes[reader].depends_on.get('nodes', []) if id in graph.nodes and id not in upstream and id not in selected_resources %}
      {% do upstream.append(id) %}
      {% if graph.nodes[id].config.materialized == 'ephemeral' %}
        {% do readers.append(id) %}
      {% endif %}
    {% endfor %}
  {% endfor %}
  {{ return(upstream) }}
{% endmacro %}
