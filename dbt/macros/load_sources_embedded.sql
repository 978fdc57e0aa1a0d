{# Invents the books of a few households: salary, rent, bills and standing orders on their days, and between them as many
   purchases as it takes to reach `transactions` rows exactly. Every value is drawn from a hash of (seed, what, which), so
   equal vars give equal data. Ids leave the seed out: with another seed the same people live another life. #}
{% macro load_sources_embedded() %}
  {% set users = var('users') | int %}
  {% set transactions = var('transactions') | int %}
  {% set as_of = "date '" ~ var('as_of') ~ "'" %}
  {% if users < 1 or transactions < 60 * users %}
    {% do exceptions.raise_compiler_error(
      'vars: at least 1 user and 60 transactions for each (got ' ~ users ~ ' and ' ~ transactions ~ ')'
    ) %}
  {% endif %}

  {# About half of a short history is recurring payments, eleven a month. A long one is cut at two years, and then
     incomes and bills grow with the number of purchases, so that balances stay believable. #}
  {% set per_user = transactions // users %}
  {% set months = [3, [24, per_user // 22] | min] | max %}
  {% set monthly_purchases = [5, per_user // months - 11] | max %}
  {% set scale = [1, (monthly_purchases / 72) | round(2)] | max %}
  {% set first_day = "(date_trunc('month', " ~ as_of ~ ") - interval " ~ (months - 1) ~ " month)::date" %}

  {% set people %}
    select u, {{ id('user', 'u') }} as user_id, {{ draw('wealth', 'u') }} as wealth from range({{ users }}) t(u)
  {% endset %}

  {% do run_query('create schema if not exists finance') %}
  {% do run_query('create or replace table finance.clock as select ' ~ as_of ~ ' as as_of') %}

  {% call statement('accounts', auto_begin=False) %}
    create or replace table finance.accounts as
    with people as ({{ people }}),
    kinds(kind, name, institution, opening) as (values
      ('checking', 'Everyday', 'Harbour Bank', 2500),
      ('savings', 'Savings', 'Harbour Bank', 3000),
      ('credit_card', 'Credit card', 'Northern Card', 0),
      ('loan', 'Car loan', 'Crédit Rivière', -11000))
    select
      {{ id('account', 'u, kind') }} as id,
      user_id,
      name,
      kind,
      institution,
      'EUR' as currency,
      round(opening * (0.8 + 0.4 * {{ draw('opening', 'u, kind') }}) * {{ scale }}, 2)::decimal(18, 2) as opening_balance,
      {{ first_day }} as opened_on
    from people cross join kinds
    where kind != 'loan' or u % 2 = 0
    order by u, kind
  {% endcall %}

  {% call statement('tags', auto_begin=False) %}
    create or replace table finance.tags as
    with people as ({{ people }}),
    names(name, kind) as (values
      ('Salary', 'income'),
      ('Housing', 'expense'), ('Bills', 'expense'), ('Groceries', 'expense'),
      ('Eating out', 'expense'), ('Transport', 'expense'), ('Leisure', 'expense'),
      ('Transfers', 'transfer'))
    select {{ id('tag', 'u, name') }} as id, user_id, name, kind
    from people cross join names
    order by u, name
  {% endcall %}

  {% call statement('recurring_payments', auto_begin=False) %}
    create or replace table finance.recurring_payments as
    with people as ({{ people }}),
    orders(counterparty, tag, every_months, first_month, day, low, high, is_estimate) as (values
      ('Salary', 'Salary', 1, 0, 25, 2950, 4100, false),
      ('Rent', 'Housing', 1, 0, 1, -800, -1150, false),
      ('Municipal Power', 'Bills', 1, 0, 12, -60, -90, true),
      ('Fibre & Phone', 'Bills', 1, 0, 8, -45, -45, false),
      ('Home insurance', 'Bills', 3, 1, 3, -96, -96, false),
      ('Cinéma en ligne', 'Leisure', 1, 0, 17, -12.99, -12.99, false),
      ('To savings', 'Transfers', 1, 0, 26, -200, -400, false),
      ('Loan instalment', 'Transfers', 1, 0, 5, -240, -240, false))
    select
      {{ id('recurring payment', 'u, counterparty') }} as id,
      user_id,
      {{ id('account', "u, 'checking'") }} as account_id,
      case counterparty
        when 'To savings' then {{ id('account', "u, 'savings'") }}
        when 'Loan instalment' then {{ id('account', "u, 'loan'") }}
      end as to_account_id,
      {{ id('tag', 'u, tag') }} as tag_id,
      counterparty,
      round((low + (high - low) * wealth) * {{ scale }}, 2)::decimal(18, 2) as amount,
      is_estimate,
      every_months,
      ({{ first_day }} + to_months(first_month) + to_days(day - 1))::date as starts_on,
      case when counterparty = 'Cinéma en ligne' and u % 3 = 1 then {{ as_of }} - 75 end as ends_on
    from people cross join orders
    where counterparty != 'Loan instalment' or u % 2 = 0
    order by u, counterparty
  {% endcall %}

  {% call statement('transactions', auto_begin=False) %}
    create or replace table finance.transactions as
    with people as ({{ people }}),
    recurring as (
      select p.*, u, (starts_on + to_months((k * every_months)::int))::date as day
      from finance.recurring_payments p
      join people using (user_id)
      cross join range({{ months }}) t(k)
      where day <= least({{ as_of }}, ends_on)),
    recurring_legs as (
      select u, user_id, counterparty, day, account_id, tag_id, to_account_id is not null as is_transfer, 'out' as leg,
        round(amount * if(is_estimate, 1 + 0.25 * cos((month(day) - 1) * pi() / 6), 1), 2) as amount
      from recurring
      union all
      select u, user_id, counterparty, day, to_account_id, tag_id, true, 'in', -amount
      from recurring
      where to_account_id is not null),

    card_months as (
      select u, user_id, ({{ first_day }} + to_months(m::int))::date as month, (month + interval 1 month + interval 3 day)::date as day
      from people cross join range({{ months }}) t(m)
      where day <= {{ as_of }}),

    purchase_counts as (
      select {{ transactions }} - (select count(*) from recurring_legs) - 2 * (select count(*) from card_months) as purchases),
    shops(tag, from_share, to_share, low, high, names) as (values
      ('Groceries', 0.00, 0.34, 6, 92, ['Corner Market', 'Grünkern', 'Baker & Daughter', 'Super Ñandú']),
      ('Eating out', 0.34, 0.62, 4, 54, ['Café Zoë', 'Noodle House', 'Tom''s Diner', 'Kiosk 24', 'Trattoria Da Ugo']),
      ('Transport', 0.62, 0.82, 2, 30, ['City Transit', 'Bike Share', 'Regional Rail', 'Taxi Ålesund']),
      ('Leisure', 0.82, 1.01, 5, 88, ['Old Town Books', 'Cinema Lux', 'Climbing Hall', 'Garden Centre'])),
    picks as (
      select i // {{ users }} as k, people.*, purchases // {{ users }} + (u < purchases % {{ users }})::int as n,
        {{ draw('shop', 'i') }} as share, {{ draw('price', 'i') }} as price
      from purchase_counts, range(purchases) t(i)
      join people on u = i % {{ users }}),
    purchases as (
      select u, user_id, k, tag, if(k % 5 in (0, 2), 'credit_card', 'checking') as account,
        {{ first_day }} + floor((k + {{ draw('day', 'u, k') }}) / n * (1 + {{ as_of }} - {{ first_day }}))::int as day,
        names[1 + floor({{ draw('name', 'u, k') }} * len(names))::int] as counterparty,
        -round((low + (high - low) * price * price) * (0.85 + 0.25 * wealth), 2)::decimal(18, 2) as amount,
        case floor({{ draw('note', 'u, k') }} * 40)::int
          when 0 then 'shared with Zoë' when 1 then 'a gift, “for later”' when 2 then 'O''Hara''s round' end as note
      from picks
      join shops on share >= from_share and share < to_share),

    card_payments as (
      select u, user_id, card_months.month, any_value(card_months.day) as day, coalesce(-sum(amount), 0) as amount
      from card_months
      left join (
        select user_id, date_trunc('month', day)::date as month, amount from purchases where account = 'credit_card'
      ) using (user_id, month)
      group by all),

    movements as (
      select u, user_id, account_id, tag_id, day, amount,
        case when is_transfer then 'transfer' when amount > 0 then 'income' else 'expense' end as kind, counterparty, null as note,
        if(is_transfer, {{ id('transfer', 'u, counterparty, day') }}, null) as transfer_id,
        {{ id('transaction', 'u, counterparty, day, leg') }} as id
      from recurring_legs
      union all
      select u, user_id, {{ id('account', 'u, account') }}, {{ id('tag', "u, 'Transfers'") }}, day, sign * amount,
        'transfer', 'Card payment', null,
        {{ id('transfer', "u, 'card', day") }}, {{ id('transaction', "u, 'card', day, account") }}
      from card_payments cross join (values ('checking', -1), ('credit_card', 1)) legs(account, sign)
      union all
      select u, user_id, {{ id('account', 'u, account') }}, {{ id('tag', 'u, tag') }}, day, amount,
        'expense', counterparty, note, null, {{ id('transaction', "u, 'purchase', k") }}
      from purchases)
    select id, user_id, account_id, tag_id,
      day + to_seconds(25200 + floor({{ draw('time', 'id') }} * 54000)) as booked_at,
      amount::decimal(18, 2) as amount, kind, counterparty, note, transfer_id
    from movements
    order by u, booked_at, id
  {% endcall %}

  {% call statement('budgets', auto_begin=False) %}
    create or replace table finance.budgets as
    with people as ({{ people }}),
    typical(tag, amount) as (values
      ('Groceries', 11.8 * {{ monthly_purchases }}), ('Eating out', 5.8 * {{ monthly_purchases }}),
      ('Transport', 2.3 * {{ monthly_purchases }}), ('Leisure', 5.9 * {{ monthly_purchases }}),
      ('Bills', 155 * {{ scale }}))
    select
      {{ id('budget', 'u, tag') }} as id, user_id, {{ id('tag', 'u, tag') }} as tag_id,
      (10 * ceil(amount * (0.8 + 0.5 * {{ draw('budget', 'u, tag') }}) / 10))::decimal(18, 2) as monthly_limit
    from people cross join typical
    order by u, tag
  {% endcall %}

  {% call statement('goals', auto_begin=False) %}
    create or replace table finance.goals as
    with people as ({{ people }}),
    names(name, share, horizon) as (values ('Emergency fund', 0.6, 9), ('Summer in the Pyrénées', 0.4, 2))
    select
      {{ id('goal', 'u, name') }} as id, user_id, {{ id('account', "u, 'savings'") }} as account_id, name,
      share::decimal(5, 4) as account_share,
      (100 * ceil(share * (3000 + (200 + 200 * wealth) * {{ months }}) * {{ scale }}
        * (0.7 + 0.7 * {{ draw('goal', 'u, name') }}) / 100))::decimal(18, 2) as target_amount,
      ({{ first_day }} + to_months(({{ months }} - 1 + horizon)::int))::date as target_date
    from people cross join names
    order by u, name
  {% endcall %}
{% endmacro %}


{% macro id(what, which) -%}
md5(concat_ws('/', '{{ what }}', {{ which }}))::uuid
{%- endmacro %}

{# A number in [0, 1). DuckDB's hash() may change from version to version; md5 does not. #}
{% macro draw(what, which) -%}
(md5_number_lower(concat_ws('/', {{ var('seed') | int }}, '{{ what }}', {{ which }})) / 18446744073709551616.0)
{%- endmacro %}
