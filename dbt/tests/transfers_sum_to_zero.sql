select transfer_id, sum(amount) as total, count(*) as sides
from {{ ref('fct_transactions') }}
where transaction_type = 'transfer'
group by transfer_id
having total != 0 or sides != 2 or count(distinct user_id) != 1
