SELECT AVG(UserID) FROM mart.hits
