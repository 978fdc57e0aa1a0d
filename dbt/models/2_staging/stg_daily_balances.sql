-- One row for each account and day from its opening to the clock's day, also for days on which nothing moved.
with days as (
  select
    account_id,
    user_id,
    opening_balance,
    unnest(generate_series(opened_on, as_of, interval 1 day))::date as balance_date
  from {{ ref('stg_accounts') }}
  cross join {{ ref('stg_clock') }}
),

movements as (
  select
    account_id,
    transaction_date as balance_date,
    sum(greatest(amount, 0)) as inflow,
    -sum(least(amount, 0)) as outflow
  from {{ ref('stg_transactions') }}
  group by all
)

select
  account_id,
  user_id,
  balance_date,
  coalesce(inflow, 0)::decimal(18, 2) as inflow,
  coalesce(outflow, 0)::decimal(18, 2) as outflow,
  (opening_balance + sum(coalesce(inflow - outflow, 0)) over (
    partition by account_id order by balance_date
  ))::decimal(18, 2) as balance
from days
left join movements using (account_id, balance_date)
