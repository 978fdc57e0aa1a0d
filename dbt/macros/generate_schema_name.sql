{# dbt's own version calls the schema `main_mart`, and that is where the readers of the old file look for its tables. Marts that
   are files alone have the name that clients ask for, `mart`. martd serves both names from both. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
  {%- if var('marts_as') == 'table' -%}
    {{ default__generate_schema_name(custom_schema_name, node) }}
  {%- else -%}
    {{ (custom_schema_name or target.schema) | trim }}
  {%- endif -%}
{%- endmacro %}
