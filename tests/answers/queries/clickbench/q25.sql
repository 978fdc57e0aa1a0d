SELECT SearchPhrase FROM mart.hits WHERE SearchPhrase <> '' ORDER BY EventTime LIMIT 10
