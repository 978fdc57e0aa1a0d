select
  transaction_id,
  transactions.user_id,
  account_id,
  account_name,
  account_type,
  tag_id,
  tag_name,
  transaction_date,
  booked_at,
  transaction_type,
  amount,
  (opening_balance + sum(amount) over (
    partition by account_id order by booked_at, transaction_id
  ))::decimal(18, 2) as balance_after,
  currency,
  counterparty,
  note,
  transfer_id,
  exists (
    from {{ ref('stg_recurring_payments') }} recurring
    where recurring.user_id = transactions.user_id and recurring.counterparty = transactions.counterparty
  ) as is_recurring
from {{ ref('stg_transactions') }} transactions
join {{ ref('stg_accounts') }} using (account_id)
join {{ ref('stg_tags') }} using (tag_id)
order by transactions.user_id, booked_at, transaction_id
