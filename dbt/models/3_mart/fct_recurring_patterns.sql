-- Found in the transactions themselves, not in the list of standing orders: at least three payments of one account to one
-- counterparty, whose intervals all lie near the same period.
{% set periods = {'weekly': (6, 8), 'monthly': (26, 33), 'quarterly': (85, 97), 'yearly': (355, 376)} %}

with intervals as (
  select
    *,
    transaction_date - lag(transaction_date) over (
      partition by account_id, tag_id, counterparty order by booked_at
    ) as days
  from {{ ref('stg_transactions') }}
),

series as (
  select
    user_id,
    account_id,
    tag_id,
    counterparty,
    transaction_type,
    case
      {%- for name, (shortest, longest) in periods.items() %}
      when min(days) >= {{ shortest }} and max(days) <= {{ longest }} then '{{ name }}'
      {%- endfor %}
    end as period,
    round(avg(days))::int as interval_days,
    count(*) as occurrences,
    median(amount)::decimal(18, 2) as typical_amount,
    min(amount) as smallest,
    max(amount) as largest,
    min(transaction_date) as first_date,
    max(transaction_date) as last_date
  from intervals
  group by all
  having count(*) >= 3 and period is not null
)

select
  md5(concat_ws('/', account_id, tag_id, counterparty, transaction_type))::uuid as pattern_id,
  series.user_id,
  account_id,
  account_name,
  tag_id,
  tag_name,
  counterparty,
  transaction_type,
  period,
  occurrences,
  typical_amount,
  smallest != largest as amount_varies,
  first_date,
  last_date,
  case period
    when 'weekly' then last_date + interval 7 day
    when 'monthly' then last_date + interval 1 month
    when 'quarterly' then last_date + interval 3 month
    when 'yearly' then last_date + interval 1 year
  end::date as next_expected_date,
  if(as_of <= next_expected_date + interval_days // 3, 'active', 'lapsed') as status
from series
join {{ ref('stg_accounts') }} using (account_id)
join {{ ref('stg_tags') }} using (tag_id)
cross join {{ ref('stg_clock') }}
order by series.user_id, counterparty, account_name
