-- Each account's last daily balance, its current balance and its opening balance plus all its transactions are one number.
with last_days as (
  select account_id, arg_max(balance, balance_date) as last_balance
  from {{ ref('fct_daily_balance_history') }}
  group by account_id
),

sums as (
  select account_id, sum(amount) as moved
  from {{ ref('fct_transactions') }}
  group by account_id
)

select *
from {{ ref('dim_accounts') }}
left join last_days using (account_id)
left join sums using (account_id)
where current_balance is distinct from last_balance
  or current_balance is distinct from opening_balance + coalesce(moved, 0)
