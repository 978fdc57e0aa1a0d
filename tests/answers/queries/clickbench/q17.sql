SELECT UserID, SearchPhrase, COUNT(*) FROM mart.hits GROUP BY UserID, SearchPhrase ORDER BY COUNT(*) DESC LIMIT 10
