SELECT SearchEngineID, SearchPhrase, COUNT(*) AS c FROM mart.hits WHERE SearchPhrase <> '' GROUP BY SearchEngineID, SearchPhrase ORDER BY c DESC LIMIT 10
