with months as (
  select
    user_id,
    date_trunc('month', transaction_date)::date as month,
    count(*) as transaction_count,
    coalesce(sum(amount) filter (where transaction_type = 'income'), 0)::decimal(18, 2) as income,
    coalesce(-sum(amount) filter (where transaction_type = 'expense'), 0)::decimal(18, 2) as expenses
  from {{ ref('stg_transactions') }}
  group by all
)

select
  user_id,
  month,
  month = date_trunc('month', as_of) and as_of < last_day(as_of) as is_partial,
  transaction_count,
  income,
  expenses,
  (income - expenses)::decimal(18, 2) as saved,
  round(saved / nullif(income, 0), 4) as savings_rate,
  avg(expenses) over (partition by user_id order by month rows 2 preceding)::decimal(18, 2) as expenses_3_month_average,
  round(expenses / nullif(lag(expenses) over (partition by user_id order by month), 0) - 1, 4) as expenses_change
from months
cross join {{ ref('stg_clock') }}
order by user_id, month
