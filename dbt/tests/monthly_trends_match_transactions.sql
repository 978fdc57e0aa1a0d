with months as (
  select user_id, date_trunc('month', transaction_date)::date as month, sum(amount) as total
  from {{ ref('fct_transactions') }}
  where transaction_type != 'transfer'
  group by all
)

select *
from {{ ref('fct_monthly_trends') }}
full join months using (user_id, month)
where saved is distinct from coalesce(total, 0)
