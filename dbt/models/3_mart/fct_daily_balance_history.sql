select
  balances.user_id,
  account_id,
  account_name,
  account_type,
  balance_date,
  inflow,
  outflow,
  balance
from {{ ref('stg_daily_balances') }} balances
join {{ ref('stg_accounts') }} using (account_id)
order by balances.user_id, account_name, balance_date
