select * from {{ ref('orders') }} left join {{ ref('customers') }} using (customer_id) where name is null
