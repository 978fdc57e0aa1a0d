{# Views over the marts that this run reads but does not build; tables instead, where marts are tables and the database lacks
   them, so that the old file never depends on another. It stands in for dbt-duckdb's macro of the same name, which stops the run
   at a mart that has no file yet, and shows the row of NULLs that is written for a mart without rows: a `not_null` test that
   passed in the build would fail in a `dbt test` after it. #}
{% macro register_upstream_external_models() %}
  {% if execute %}
    {% set upstream = [] %}
    {% for id in selected_resources if id in graph.nodes %}
      {% do upstream.extend(graph.nodes[id].depends_on.nodes) %}
    {% endfor %}
    {# `dbt retry` does not say what it selects. #}
    {% for id in (upstream | unique if selected_resources else graph.nodes) if id in graph.nodes and id not in selected_resources %}
      {% set node = graph.nodes[id] %}
      {% set type = 'view' if node.config.materialized == 'external' else 'table' %}
      {% if (type == 'view' or is_mart(node)) and is_file(mart_location(node)) %}
        {% set file = "'" ~ mart_location(node) ~ "'" %}
        {% set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias, type=type) %}
        {% set rows = run_query('from ' ~ file ~ ' limit 2').rows %}
        {% set is_empty = rows | length == 1 and rows[0] | reject('none') | list | length == 0 %}
        {% set create = 'create or replace view ' if type == 'view' else 'create table if not exists ' %}
        {% do run_query('create schema if not exists ' ~ relation.without_identifier()) %}
        {% do run_query(create ~ relation ~ ' as from ' ~ file ~ (' limit 0' if is_empty else '')) %}
        {% do adapter.cache_added(relation) %}
      {% endif %}
    {% endfor %}
  {% endif %}
{% endmacro %}
