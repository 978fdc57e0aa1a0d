with months as (
  select
    goals.*,
    balance_date as as_of_date,
    least(target_amount, greatest(0, balance * account_share))::decimal(18, 2) as saved
  from {{ ref('stg_goals') }} goals
  join {{ ref('stg_daily_balances') }} balances using (account_id)
  cross join {{ ref('stg_clock') }}
  where balance_date = last_day(balance_date) or balance_date = as_of
),

pace as (
  select
    *,
    (saved - first(saved) over quarter) / greatest(1, count(*) over quarter - 1) as saved_per_month
  from months
  window quarter as (partition by goal_id order by as_of_date rows 3 preceding)
)

select
  goal_id,
  user_id,
  goal_name,
  account_id,
  date_trunc('month', as_of_date)::date as month,
  as_of_date,
  target_amount,
  target_date,
  saved,
  (target_amount - saved)::decimal(18, 2) as missing,
  round(saved / nullif(target_amount, 0), 4) as progress,
  round(saved_per_month, 2)::decimal(18, 2) as saved_per_month,
  round(missing / greatest(1, datediff('month', as_of_date, target_date)), 2)::decimal(18, 2) as needed_per_month,
  case
    when missing = 0 then 'reached'
    when as_of_date > target_date then 'overdue'
    when pace.saved_per_month >= needed_per_month then 'on_track'
    else 'behind'
  end as status
from pace
order by user_id, goal_name, month
