select order_id, customer_id, ordered_on, status, coalesce(sum(amount), 0) as amount
from {{ ref('stg_orders') }}
left join {{ ref('stg_payments') }} using (order_id)
group by all
