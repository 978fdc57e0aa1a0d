SELECT SearchPhrase FROM mart.hits WHERE SearchPhrase <> '' ORDER BY EventTime, SearchPhrase LIMIT 10
