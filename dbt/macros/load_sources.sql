{# Fills the tables behind source() before the first model runs, so that every mart of a run reads the same state and a
   mart can be built alone on an empty database. Each target brings a macro `load_sources_<target>`. #}
{% macro load_sources() %}
  {% if execute %}
    {% do context['load_sources_' ~ target.name]() %}
  {% endif %}
{% endmacro %}
