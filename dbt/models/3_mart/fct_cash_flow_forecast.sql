-- The next 90 days of what can be spent: checking and credit card accounts together. Known payments fall on their days;
-- all other spending is assumed to go on at the pace of the last 90 days.
{% set days = 90 %}

with spendable as (
  select account_id, user_id, opening_balance
  from {{ ref('stg_accounts') }}
  where account_type in ('checking', 'credit_card')
),

calendar as (
  select
    user_id,
    unnest(range(1, {{ days + 1 }}))::int as days_ahead,
    as_of + days_ahead as forecast_date
  from (select distinct user_id from spendable)
  cross join {{ ref('stg_clock') }}
),

balances as (
  select user_id, sum(opening_balance + coalesce(moved, 0)) as balance
  from spendable
  left join (
    select account_id, sum(amount) as moved from {{ ref('stg_transactions') }} group by account_id
  ) using (account_id)
  group by user_id
),

pace as (
  select
    spendable.user_id,
    -sum(amount) / {{ days }} as spending_per_day
  from {{ ref('stg_transactions') }} transactions
  join spendable using (account_id)
  cross join {{ ref('stg_clock') }}
  where transaction_type = 'expense'
    and transaction_date > as_of - {{ days }}
    and not exists (
      from {{ ref('stg_recurring_payments') }} recurring
      where recurring.user_id = transactions.user_id and recurring.counterparty = transactions.counterparty
    )
  group by spendable.user_id
),

occurrences as (
  select
    *,
    unnest(range(0, 1 + datediff('month', starts_on, as_of + {{ days }}) // every_months)) as number
  from {{ ref('stg_recurring_payments') }}
  cross join {{ ref('stg_clock') }}
  where account_id in (select account_id from spendable)
    and (to_account_id is null or to_account_id not in (select account_id from spendable))
),

scheduled as (
  select
    user_id,
    (starts_on + to_months((number * every_months)::int))::date as forecast_date,
    sum(greatest(amount, 0)) as income,
    -sum(least(amount, 0)) as payments
  from occurrences
  where ends_on is null or forecast_date <= ends_on
  group by all
)

select
  user_id,
  forecast_date,
  days_ahead,
  coalesce(income, 0)::decimal(18, 2) as expected_income,
  coalesce(payments, 0)::decimal(18, 2) as expected_payments,
  round(coalesce(spending_per_day, 0), 2)::decimal(18, 2) as expected_spending,
  (balance + sum(expected_income - expected_payments - expected_spending) over (
    partition by user_id order by days_ahead
  ))::decimal(18, 2) as projected_balance,
  projected_balance < 0 as is_overdrawn
from calendar
join balances using (user_id)
left join pace using (user_id)
left join scheduled using (user_id, forecast_date)
order by user_id, forecast_date
