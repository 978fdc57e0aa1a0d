-- Rows are shown to a user by user_id: no row may point at another user's account or tag.
select transaction_id
from {{ ref('fct_transactions') }} transactions
join {{ ref('dim_accounts') }} accounts using (account_id)
join {{ ref('dim_tags') }} tags using (tag_id)
where transactions.user_id != accounts.user_id or transactions.user_id != tags.user_id
