SELECT COUNT(*) FROM mart.hits
