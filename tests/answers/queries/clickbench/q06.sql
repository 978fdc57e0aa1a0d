SELECT COUNT(DISTINCT SearchPhrase) FROM mart.hits
