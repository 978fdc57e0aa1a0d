select customer_id, name, count(order_id) as orders, max(ordered_on) as last_order, coalesce(sum(amount), 0) as spent
from {{ ref('stg_customers') }}
left join {{ ref('orders') }} using (customer_id)
group by all
