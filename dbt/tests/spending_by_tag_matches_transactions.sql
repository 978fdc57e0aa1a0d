with tags as (
  select tag_id, sum(amount) as total
  from {{ ref('fct_transactions') }}
  where transaction_type = 'expense'
  group by tag_id
),

spending as (
  select tag_id, sum(amount_spent) as spent
  from {{ ref('fct_daily_spending_by_tag') }}
  group by tag_id
)

select *
from tags
full join spending using (tag_id)
where total is distinct from -spent
