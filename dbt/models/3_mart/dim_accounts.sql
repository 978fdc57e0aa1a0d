with activity as (
  select
    account_id,
    sum(amount) as moved,
    count(*) as transaction_count,
    max(transaction_date) as last_transaction_date
  from {{ ref('stg_transactions') }}
  group by account_id
)

select
  account_id,
  user_id,
  account_name,
  account_type,
  is_liability,
  institution,
  currency,
  opened_on,
  opening_balance,
  (opening_balance + coalesce(moved, 0))::decimal(18, 2) as current_balance,
  coalesce(transaction_count, 0) as transaction_count,
  last_transaction_date
from {{ ref('stg_accounts') }}
left join activity using (account_id)
order by user_id, account_name
