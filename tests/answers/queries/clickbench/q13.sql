SELECT SearchPhrase, COUNT(*) AS c FROM mart.hits WHERE SearchPhrase <> '' GROUP BY SearchPhrase ORDER BY c DESC LIMIT 10
