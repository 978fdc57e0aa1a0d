SELECT * FROM mart.hits WHERE URL LIKE '%google%' ORDER BY EventTime LIMIT 10
