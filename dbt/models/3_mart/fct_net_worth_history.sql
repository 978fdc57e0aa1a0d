with month_ends as (
  select
    balances.user_id,
    balance_date as as_of_date,
    sum(balance) filter (where not is_liability) as assets,
    sum(balance) filter (where is_liability) as liabilities
  from {{ ref('stg_daily_balances') }} balances
  join {{ ref('stg_accounts') }} using (account_id)
  cross join {{ ref('stg_clock') }}
  where balance_date = last_day(balance_date) or balance_date = as_of
  group by all
)

select
  user_id,
  date_trunc('month', as_of_date)::date as month,
  as_of_date,
  coalesce(assets, 0)::decimal(18, 2) as assets,
  coalesce(-liabilities, 0)::decimal(18, 2) as liabilities,
  (coalesce(assets, 0) + coalesce(liabilities, 0))::decimal(18, 2) as net_worth,
  (net_worth - lag(net_worth) over (partition by user_id order by as_of_date))::decimal(18, 2) as change
from month_ends
order by user_id, month
