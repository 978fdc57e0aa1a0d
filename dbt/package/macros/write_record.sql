{# The record of this run, `_builds/<invocation id>.json`, as docs/ledger.md describes it. What comes back is SQL: dbt reports its
   failure as the hook's, and the run fails. #}
{% macro write_record(results) %}
  {# The former by nodes, which have failed then; the latter keep martd from serving what is in order. #}
  {% set problems, obstacles = {}, [] %}
  {% set marts = martd.record_marts(results, problems, obstacles) %}
  {% set entries = martd.record_results(results, problems) %}
  {% set nodes = [] %}
  {% for id, node in graph.nodes.items() if node.resource_type in ['model', 'test', 'seed', 'snapshot'] %}
    {% do nodes.append(id) %}
  {% endfor %}
  {% set record = {
    'version': 2,
    'build': {
      'id': invocation_id,
      'started_at': martd.utc(run_started_at),
      'finished_at': martd.utc(modules.datetime.datetime.now(modules.pytz.utc)),
      'writer': 'dbt ' ~ dbt_version,
      'project': project_name,
      'status': 'error' if entries | rejectattr('status', 'in', martd.passing()) | list else 'success',
    },
    'marts': marts,
    'results': entries,
    'nodes': nodes | sort,
  } %}

  {% set columns = [] %}
  {% for key, value in record.items() %}
    {% do columns.append(martd.quoted(tojson(martd.plain(value))) ~ '::json as ' ~ key) %}
  {% endfor %}
  {% set file = martd.root() ~ '_builds/' ~ invocation_id ~ '.json' %}
  {% set copy = 'copy (select ' ~ columns | join(', ') ~ ') to ' ~ martd.quoted(file) ~ ' (format json, use_tmp_file true)' %}
  {% do martd.say('build ' ~ invocation_id ~ ' with ' ~ marts | length ~ (' mart' if marts | length == 1 else ' marts') ~ martd.held(marts, entries)) %}
  {% set complaints = problems.values() | list + obstacles %}
  {% if complaints %}
    {% set copy = copy ~ '; select error(' ~ martd.quoted('martd: ' ~ complaints | join('; ')) ~ ')' %}
  {% endif %}
  {{ return(copy) }}
{% endmacro %}


{# What of this run keeps martd from serving it. #}
{% macro held(marts, entries) %}
  {% set failed = entries | rejectattr('status', 'in', martd.passing()) | sort(attribute='status') | list %}
  {% set first = failed | rejectattr('status', 'equalto', 'skipped') | list + failed %}
  {% if first %}
    {{ return(', held: ' ~ first[0].id ~ ' has not succeeded' ~ martd.and_more(failed)) }}
  {% endif %}
  {% set ran = entries | map(attribute='id') | list %}
  {% set waiting = marts | map(attribute='tests') | sum(start=[]) | unique | reject('in', ran) | list %}
  {% if waiting %}
    {% set tests = '1 test has' if waiting | length == 1 else waiting | length ~ ' tests have' %}
    {{ return(', held: ' ~ tests ~ ' not run since: run dbt test') }}
  {% endif %}
  {{ return('') }}
{% endmacro %}


{% macro passing() %}
  {{ return(['success', 'pass', 'warn', 'no-op']) }}
{% endmacro %}


{# The marts that this run built. One whose files cannot be vouched for goes to `problems`, by its node's id. #}
{% macro record_marts(results, problems, obstacles) %}
  {% set tests = martd.tests_by_node() %}
  {% set present = martd.present_files() %}
  {% set marts = [] %}
  {% for result in results if result.status == 'success' and result.node.unique_id in graph.nodes %}
    {% set node = graph.nodes[result.node.unique_id] %}
    {% set output = martd.output(node) %}
    {% if output and output.reason %}
      {% do martd.say(node.unique_id ~ ' writes ' ~ output.location ~ ', which is not served: ' ~ output.reason) %}
    {% elif output %}
      {% set found = martd.files(node, output, result, present) %}
      {% set beside = martd.beside(output, present) %}
      {% if beside %}
        {% do obstacles.append(beside) %}
      {% endif %}
      {% if found.problem %}
        {% do problems.update({node.unique_id: found.problem}) %}
      {% else %}
        {% set columns = [] %}
        {% for column in node.columns.values() %}
          {% do columns.append({'name': column.name, 'description': column.description, 'data_type': column.data_type}) %}
        {% endfor %}
        {% do marts.append({
          'id': node.unique_id,
          'name': output.name,
          'schema': node.schema,
          'description': node.description,
          'meta': node.config.meta,
          'columns': columns,
          'tests': tests.get(node.unique_id, []),
          'files': found.files,
        }) %}
      {% endif %}
    {% endif %}
  {% endfor %}
  {{ return(marts | sort(attribute='name')) }}
{% endmacro %}


{# The tests that have to pass after a node is built, by its id. #}
{% macro tests_by_node() %}
  {% set tests = {} %}
  {% if var('martd_untested', 'hold') == 'hold' %}
    {% for id, test in graph.nodes.items() if test.resource_type == 'test' and test.config.severity | lower != 'warn' %}
      {% for parent in test.depends_on.nodes %}
        {% do tests.setdefault(parent, []).append(id) %}
      {% endfor %}
    {% endfor %}
  {% endif %}
  {{ return(tests) }}
{% endmacro %}


{# What ran. A node without data, because of --empty or --sample, has proved nothing. #}
{% macro record_results(results, problems) %}
  {% set hollow = flags.EMPTY or flags.SAMPLE %}
  {% set entries = [] %}
  {% for result in results
    if result.node.resource_type not in ['exposure', 'saved_query'] and result.node.config.materialized != 'ephemeral' %}
    {% set id = result.node.unique_id %}
    {% set status, message = result.status, result.message or result.status %}
    {% if id in problems %}
      {% set status, message = 'error', problems[id] %}
    {% elif status == 'skipped' %}
      {% set message = 'skipped, because another node failed' %}
    {% elif hollow and status in martd.passing() %}
      {% set status, message = 'empty', 'ran with --empty or --sample' %}
    {% elif status in martd.passing() %}
      {% set message = none %}
    {% endif %}
    {% set kind = 'test' if result.node.resource_type == 'unit_test' else result.node.resource_type %}
    {% do entries.append({'id': id, 'kind': kind, 'status': status, 'message': message and (message | trim)[:2000]}) %}
  {% endfor %}
  {{ return(entries | sort(attribute='id')) }}
{% endmacro %}
