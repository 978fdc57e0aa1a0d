{# The ledger `_build.json` lies beside the marts and says what may be read together: which invocation last built each mart,
   and which nodes failed and have not succeeded since. A reader holds back new files while any node is outstanding or any
   mart is not from the invocation named here. Each run brings the last run's ledger up to date. #}

{% macro write_ledger(results) %}
  {# Nothing ran (on-run-start failed, or only ephemeral models were selected): what the ledger says is still so. #}
  {% if execute and results %}
    {% set location = adapter.external_root() ~ '/_build.json' %}
    {% set previous = read_ledger(location) %}
    {% set finished_at = utc(modules.datetime.datetime.now(modules.pytz.utc)) %}
    {% set models = ledger_models(results, previous) %}
    {% set build = {
      'invocation_id': invocation_id,
      'started_at': utc(run_started_at),
      'finished_at': finished_at,
      'status': 'error' if results | rejectattr('status', 'in', ledger_passing()) | list else 'success',
      'results': ledger_results(results),
      'outstanding': ledger_outstanding(results, previous, models, finished_at),
      'models': models,
    } %}
    {% do run_query(
      "copy (select '" ~ adapter.escape_sql_string(tojson(build)) ~ "'::json as build) to '" ~ location
      ~ "' (format json, use_tmp_file true)"
    ) %}
  {% endif %}
{% endmacro %}


{% macro ledger_passing() %}
  {{ return(['success', 'pass', 'warn', 'no-op']) }}
{% endmacro %}


{# What the last run left: `outstanding` by unique_id and `invocations` by mart. `lost` when there is a ledger that cannot
   be understood: then nothing is known of nodes that do not run now. #}
{% macro read_ledger(location) %}
  {% set previous = {'lost': false, 'outstanding': {}, 'invocations': {}} %}
  {% if not is_file(location) %}
    {{ return(previous) }}
  {% endif %}

  {% set text = run_query("select try(decode(content)) from read_blob('" ~ location ~ "')")[0][0] %}
  {% set ledger = fromjson(text or '', none) %}
  {% set build = ledger.get('build') if ledger is mapping else none %}
  {% if build is mapping and build.get('outstanding') is sequence and build.get('models') is sequence %}
    {% for entry in build['outstanding'] if entry is mapping and entry.get('unique_id') is string %}
      {% do previous['outstanding'].update({entry['unique_id']: entry}) %}
    {% endfor %}
    {% for entry in build['models'] if entry is mapping and entry.get('name') is string and entry.get('invocation_id') is string %}
      {% do previous['invocations'].update({entry['name']: entry['invocation_id']}) %}
    {% endfor %}
    {% if previous['outstanding'] | length == build['outstanding'] | length
      and previous['invocations'] | length == build['models'] | length %}
      {{ return(previous) }}
    {% endif %}
  {% endif %}

  {% do log('Cannot understand ' ~ location ~ ': every node that does not pass in this run is outstanding.', info=true) %}
  {{ return({'lost': true, 'outstanding': {}, 'invocations': {}}) }}
{% endmacro %}


{% macro ledger_results(results) %}
  {% set types = {'model': 'model', 'test': 'test', 'unit_test': 'test'} %}
  {% set entries = [] %}
  {% for result in results if result.node.resource_type in types %}
    {% do entries.append({
      'unique_id': result.node.unique_id,
      'name': result.node.name,
      'resource_type': types[result.node.resource_type],
      'status': result.status,
    }) %}
  {% endfor %}
  {{ return(entries | sort(attribute='unique_id')) }}
{% endmacro %}


{# The marts of the project that have been built, each with the invocation that last succeeded. The file of a mart whose
   build failed is still the one before, and a mart never built has no file to wait for. #}
{% macro ledger_models(results, previous) %}
  {% set built = results | selectattr('status', 'equalto', 'success') | map(attribute='node.unique_id') | list %}
  {% set entries = [] %}
  {% for node in graph.nodes.values() if is_mart(node) %}
    {% set built_by = invocation_id if node.unique_id in built else previous['invocations'].get(node.alias) %}
    {% if built_by %}
      {% set columns = [] %}
      {% for column in node.columns.values() %}
        {% do columns.append({'name': column.name, 'description': column.description, 'data_type': column.data_type}) %}
      {% endfor %}
      {% do entries.append({
        'unique_id': node.unique_id,
        'name': node.alias,
        'schema': node.schema,
        'description': node.description,
        'invocation_id': built_by,
        'meta': node.config.meta,
        'columns': columns,
      }) %}
    {% endif %}
  {% endfor %}
  {{ return(entries | sort(attribute='name')) }}
{% endmacro %}


{# Every node that failed and has not succeeded since. A skipped node is one: a mart that was not rebuilt beside the rest
   does not fit them, and a test that could not look proves nothing. So is a node that ran with --empty or --sample, which
   leave next to nothing in the marts. #}
{% macro ledger_outstanding(results, previous, models, now) %}
  {% set hollow = flags.EMPTY or flags.SAMPLE %}
  {% set entries = {} %}
  {% set passed = [] %}

  {% for result in results
    if result.node.resource_type != 'exposure' and result.node.config.materialized != 'ephemeral' %}
    {% set id = result.node.unique_id %}
    {% if result.status == 'skipped' %}
      {% do entries.update({id: 'skipped, because another node failed'}) %}
    {% elif result.status not in ledger_passing() %}
      {% do entries.update({id: (result.message or result.status) | trim}) %}
    {% elif hollow %}
      {% do entries.update({id: 'ran with --empty or --sample'}) %}
    {% else %}
      {% do passed.append(id) %}
    {% endif %}
  {% endfor %}

  {% for id, entry in previous['outstanding'].items() if id not in passed and id not in entries %}
    {% if is_in_project(id, passed) %}
      {% do entries.update({id: entry.get('message', '')}) %}
    {% endif %}
  {% endfor %}

  {# A file without an entry is from a build that was killed, or whose ledger is gone. #}
  {% set recorded = models | map(attribute='unique_id') | list %}
  {% for id, node in graph.nodes.items() if id not in entries and id not in passed %}
    {% if is_mart(node) and id not in recorded and is_file(mart_location(node)) %}
      {% do entries.update({id: 'its file is not from any build in the ledger: build it again'}) %}
    {% elif previous['lost'] and node.resource_type in ['test', 'seed', 'snapshot'] %}
      {% do entries.update({id: 'the ledger was damaged and its last result is not known: run it again'}) %}
    {% endif %}
  {% endfor %}

  {% set outstanding = [] %}
  {% for id, message in entries | dictsort %}
    {% set since = previous['outstanding'].get(id, {}).get('since') or now %}
    {% do outstanding.append({'unique_id': id, 'message': (message | string)[:2000], 'since': since}) %}
  {% endfor %}
  {{ return(outstanding) }}
{% endmacro %}


{# Hooks run every time, so one that did not fail now has succeeded. Unit tests are not in the graph; they guard the model
   they are named after, so they are kept until it is built again or gone. #}
{% macro is_in_project(unique_id, passed) %}
  {% set parts = unique_id.split('.') %}
  {% if parts[0] == 'unit_test' %}
    {% set model = ['model', parts[1], parts[2]] | join('.') %}
    {{ return(model in graph.nodes and model not in passed) }}
  {% endif %}
  {{ return(unique_id in graph.nodes and parts[0] != 'operation') }}
{% endmacro %}


{# What leaves a file for readers: an external model, or a table with the post-hook that exports it. #}
{% macro is_mart(node) %}
  {% set hooks = node.config.get('post-hook', []) | map(attribute='sql') | join %}
  {{ return(
    node.resource_type == 'model'
    and (node.config.materialized == 'external' or node.config.materialized == 'table' and 'export_mart' in hooks)
    and mart_location(node) == adapter.external_root() ~ '/' ~ node.alias ~ '.parquet'
  ) }}
{% endmacro %}

{% macro mart_location(node) %}
  {{ return(node.config.get('location') or external_location(api.Relation.create(identifier=node.alias), node.config)) }}
{% endmacro %}

{% macro is_file(path) %}
  {{ return(run_query("select file from glob('" ~ path ~ "')") | length > 0) }}
{% endmacro %}


{% macro utc(time) %}
  {{ return(time.strftime('%Y-%m-%dT%H:%M:%S.%fZ')) }}
{% endmacro %}
