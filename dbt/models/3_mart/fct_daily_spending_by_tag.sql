select
  transactions.user_id,
  transaction_date as spending_date,
  tag_id,
  tag_name,
  account_id,
  account_name,
  (-sum(amount))::decimal(18, 2) as amount_spent,
  count(*) as transaction_count
from {{ ref('stg_transactions') }} transactions
join {{ ref('stg_tags') }} using (tag_id)
join {{ ref('stg_accounts') }} using (account_id)
where transaction_type = 'expense'
group by all
order by transactions.user_id, spending_date, tag_name, account_name
