SELECT COUNT(*) FROM mart.hits WHERE URL LIKE '%google%'
