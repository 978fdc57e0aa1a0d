{# The post-hook for what is not `external`: tables, incremental models, seeds and snapshots. Their rows go to the file that an
   external model would write, in the model's transaction: when the file cannot be written, the table stays as it was, too. #}
{% macro export() %}
  {% if execute and config.get('materialized') not in ['external', 'ephemeral'] %}
    {% set output = martd.output(model) %}
    {% set options = {'format': output.format} %}
    {% if not output.is_folder %}
      {% do options.update({'use_tmp_file': true}) %}
    {% endif %}
    {% for key, value in (config.get('options') or {}).items() %}
      {% do options.update({key: render(value)}) %}
    {% endfor %}
    {% do write_to_file(this, output.location, adapter.external_write_options(output.location, options)) %}
  {% endif %}
{% endmacro %}
