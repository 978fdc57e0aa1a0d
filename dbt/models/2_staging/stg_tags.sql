select
  id as tag_id,
  user_id,
  name as tag_name,
  kind as tag_type
from {{ source('finance', 'tags') }}
