SELECT COUNT(*) FROM mart.hits WHERE AdvEngineID <> 0
