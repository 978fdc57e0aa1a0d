select as_of from {{ source('finance', 'clock') }}
