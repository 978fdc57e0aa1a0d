SELECT UserID, SearchPhrase, COUNT(*) FROM mart.hits GROUP BY UserID, SearchPhrase LIMIT 10
