with months as (
  select distinct
    user_id,
    date_trunc('month', transaction_date)::date as month
  from {{ ref('stg_transactions') }}
),

spending as (
  select
    tag_id,
    date_trunc('month', transaction_date)::date as month,
    -sum(amount) as spent
  from {{ ref('stg_transactions') }}
  where transaction_type = 'expense'
  group by all
)

select
  budget_id,
  budgets.user_id,
  month,
  tag_id,
  tag_name,
  monthly_limit as budgeted,
  coalesce(spent, 0)::decimal(18, 2) as actual,
  (budgeted - actual)::decimal(18, 2) as remaining,
  round(actual / nullif(budgeted, 0), 4) as used,
  case
    when actual > budgeted then 'over'
    when actual >= 0.9 * budgeted then 'near'
    else 'under'
  end as status
from {{ ref('stg_budgets') }} budgets
join {{ ref('stg_tags') }} using (tag_id)
join months on months.user_id = budgets.user_id
left join spending using (tag_id, month)
order by budgets.user_id, month, tag_name
