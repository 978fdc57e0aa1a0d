with balances as (
  select user_id, balance_date as as_of_date, sum(balance) as total
  from {{ ref('fct_daily_balance_history') }}
  group by all
)

select *
from {{ ref('fct_net_worth_history') }}
left join balances using (user_id, as_of_date)
where net_worth is distinct from total or net_worth != assets - liabilities
