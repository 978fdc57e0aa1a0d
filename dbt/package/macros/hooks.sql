{# What the package does by itself. Both hooks give back SQL for dbt to run, or nothing. #}

{% macro on_run_start() %}
  {% if execute and martd.builds_or_tests() %}
    {% do martd.check_project() %}
    {% do martd.make_directory(martd.root() ~ '_builds') %}
    {% do martd.register_upstream() %}
  {% endif %}
{% endmacro %}


{# Without results nothing has happened: only ephemeral models were selected, or on-run-start failed. #}
{% macro on_run_end(results) %}
  {% if execute and martd.builds_or_tests() and results %}
    {% if martd.records() %}
      {{ return(martd.write_record(results)) }}
    {% endif %}
    {% do martd.say("martd_targets leaves out the target '" ~ target.name ~ "': this run is not recorded") %}
  {% endif %}
{% endmacro %}


{# dbt runs the hooks of packages in `compile`, `docs generate` and `source freshness` too. #}
{% macro builds_or_tests() %}
  {{ return(target.type == 'duckdb' and flags.WHICH in ['build', 'run', 'test', 'seed', 'snapshot', 'retry']) }}
{% endmacro %}


{# The var `martd_targets`: the targets whose runs martd hears of. All, when it is not set. #}
{% macro records() %}
  {% set targets = var('martd_targets', none) %}
  {{ return(targets is none or target.name in ([targets] if targets is string else targets)) }}
{% endmacro %}
