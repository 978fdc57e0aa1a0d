-- The application's database: what the target `postgres` reads. `make postgres` makes it and fills it.
create schema finance;

create table finance.users (
  id uuid primary key,
  email text not null unique check (email like '%@%')
);

-- One row: the day up to which all other tables are complete.
create table finance.clock (
  as_of date not null,
  only_row boolean primary key default true check (only_row)
);

create table finance.accounts (
  id uuid primary key,
  user_id uuid not null references finance.users on delete cascade,
  name text not null,
  kind text not null check (kind in ('checking', 'savings', 'credit_card', 'loan')),
  institution text not null,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  opening_balance numeric(18, 2) not null,
  opened_on date not null,
  -- What others refer to, so that no row can point at another user's account.
  unique (id, user_id)
);

create table finance.tags (
  id uuid primary key,
  user_id uuid not null references finance.users on delete cascade,
  name text not null,
  kind text not null check (kind in ('income', 'expense', 'transfer')),
  unique (user_id, name),
  unique (id, user_id)
);

create table finance.recurring_payments (
  id uuid primary key,
  user_id uuid not null references finance.users on delete cascade,
  account_id uuid not null,
  to_account_id uuid check (to_account_id != account_id),
  tag_id uuid not null,
  counterparty text not null,
  amount numeric(18, 2) not null check (amount != 0),
  is_estimate boolean not null,
  every_months integer not null check (every_months between 1 and 12),
  starts_on date not null,
  -- May lie before starts_on: cancelled before it ever began.
  ends_on date,
  foreign key (account_id, user_id) references finance.accounts (id, user_id) on delete cascade,
  foreign key (to_account_id, user_id) references finance.accounts (id, user_id) on delete cascade,
  foreign key (tag_id, user_id) references finance.tags (id, user_id)
);

create table finance.transactions (
  id uuid primary key,
  user_id uuid not null references finance.users on delete cascade,
  account_id uuid not null,
  tag_id uuid not null,
  booked_at timestamp not null,
  amount numeric(18, 2) not null,
  kind text not null check (kind in ('income', 'expense', 'transfer')),
  counterparty text not null,
  note text,
  transfer_id uuid check ((transfer_id is not null) = (kind = 'transfer')),
  foreign key (account_id, user_id) references finance.accounts (id, user_id) on delete cascade,
  foreign key (tag_id, user_id) references finance.tags (id, user_id)
);
create index on finance.transactions (user_id, booked_at);
create index on finance.transactions (account_id);

create table finance.budgets (
  id uuid primary key,
  user_id uuid not null references finance.users on delete cascade,
  tag_id uuid not null,
  monthly_limit numeric(18, 2) not null check (monthly_limit >= 0),
  unique (user_id, tag_id),
  foreign key (tag_id, user_id) references finance.tags (id, user_id) on delete cascade
);

create table finance.goals (
  id uuid primary key,
  user_id uuid not null references finance.users on delete cascade,
  account_id uuid not null,
  name text not null,
  account_share numeric(5, 4) not null check (account_share between 0 and 1),
  target_amount numeric(18, 2) not null check (target_amount > 0),
  target_date date not null,
  foreign key (account_id, user_id) references finance.accounts (id, user_id) on delete cascade
);
