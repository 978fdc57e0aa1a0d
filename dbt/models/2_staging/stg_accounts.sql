select
  id as account_id,
  user_id,
  name as account_name,
  kind as account_type,
  kind in ('credit_card', 'loan') as is_liability,
  institution,
  currency,
  opening_balance,
  opened_on
from {{ source('finance', 'accounts') }}
