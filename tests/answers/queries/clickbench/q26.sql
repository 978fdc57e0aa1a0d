SELECT SearchPhrase FROM mart.hits WHERE SearchPhrase <> '' ORDER BY SearchPhrase LIMIT 10
