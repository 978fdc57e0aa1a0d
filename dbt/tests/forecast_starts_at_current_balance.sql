with spendable as (
  select user_id, sum(current_balance) as balance
  from {{ ref('dim_accounts') }}
  where account_type in ('checking', 'credit_card')
  group by user_id
)

select *
from {{ ref('fct_cash_flow_forecast') }}
full join spendable using (user_id)
where days_ahead is null
  or days_ahead = 1 and projected_balance is distinct from balance + expected_income - expected_payments - expected_spending
