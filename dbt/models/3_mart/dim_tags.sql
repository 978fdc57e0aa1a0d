with usage as (
  select
    tag_id,
    count(*) as transaction_count,
    min(transaction_date) as first_used_on,
    max(transaction_date) as last_used_on
  from {{ ref('stg_transactions') }}
  group by tag_id
)

select
  tag_id,
  user_id,
  tag_name,
  tag_type,
  tag_id in (select tag_id from {{ ref('stg_budgets') }}) as has_budget,
  coalesce(transaction_count, 0) as transaction_count,
  first_used_on,
  last_used_on
from {{ ref('stg_tags') }}
left join usage using (tag_id)
order by user_id, tag_name
