{# dbt's own version would call the schema `main_mart`; clients ask for `mart`. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
