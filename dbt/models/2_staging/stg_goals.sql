select
  id as goal_id,
  user_id,
  account_id,
  name as goal_name,
  account_share,
  target_amount,
  target_date
from {{ source('finance', 'goals') }}
