{% macro say(text) %}
  {% do log('martd: ' ~ text, info=true) %}
{% endmacro %}

{% macro fail(text) %}
  {% do exceptions.raise_compiler_error('martd: ' ~ text) %}
{% endmacro %}

{# Counts what comes after the first. #}
{% macro and_more(items) %}
  {{ return(' (and ' ~ (items | length - 1) ~ ' more)' if items | length > 1 else '') }}
{% endmacro %}

{# A string of SQL. DuckDB knows no other escape. #}
{% macro quoted(text) %}
  {{ return("'" ~ text | replace("'", "''") ~ "'") }}
{% endmacro %}

{# The value as JSON can say it: YAML also has dates, and numbers that are none. #}
{% macro plain(value) %}
  {% if value is mapping %}
    {% set copy = {} %}
    {% for key, item in value.items() %}
      {% do copy.update({key | string: martd.plain(item)}) %}
    {% endfor %}
    {{ return(copy) }}
  {% elif value is iterable and value is not string %}
    {% set copy = [] %}
    {% for item in value %}
      {% do copy.append(martd.plain(item)) %}
    {% endfor %}
    {{ return(copy) }}
  {% elif value is none or value is boolean or value is number and value | string not in ['nan', 'inf', '-inf'] %}
    {{ return(value) }}
  {% endif %}
  {{ return(value | string) }}
{% endmacro %}

{% macro utc(time) %}
  {{ return(time.strftime('%Y-%m-%dT%H:%M:%S.%fZ')) }}
{% endmacro %}

{# Seconds. dbt's times are UTC and do not say so. #}
{% macro epoch(time) %}
  {{ return(time.replace(tzinfo=modules.pytz.utc).timestamp()) }}
{% endmacro %}
