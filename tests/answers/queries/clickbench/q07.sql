SELECT MIN(EventDate), MAX(EventDate) FROM mart.hits
