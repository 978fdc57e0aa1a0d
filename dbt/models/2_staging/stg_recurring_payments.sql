select
  id as recurring_payment_id,
  user_id,
  account_id,
  to_account_id,
  tag_id,
  counterparty,
  amount,
  every_months,
  starts_on,
  ends_on
from {{ source('finance', 'recurring_payments') }}
