select
  id as transaction_id,
  user_id,
  account_id,
  tag_id,
  booked_at,
  booked_at::date as transaction_date,
  kind as transaction_type,
  amount,
  counterparty,
  note,
  transfer_id
from {{ source('finance', 'transactions') }}
