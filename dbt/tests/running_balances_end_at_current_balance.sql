select account_id, arg_max(balance_after, (booked_at, transaction_id)) as last_balance, any_value(current_balance) as current_balance
from {{ ref('fct_transactions') }}
join {{ ref('dim_accounts') }} using (account_id)
group by account_id
having last_balance != any_value(current_balance)
