select *
from {{ ref('fct_daily_balance_history') }}
qualify balance - inflow + outflow != lag(balance) over (partition by account_id order by balance_date)
  or balance_date - 1 != lag(balance_date) over (partition by account_id order by balance_date)
