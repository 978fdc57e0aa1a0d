select
  id as budget_id,
  user_id,
  tag_id,
  monthly_limit
from {{ source('finance', 'budgets') }}
