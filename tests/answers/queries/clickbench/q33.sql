SELECT WatchID, ClientIP, COUNT(*) AS c, SUM(IsRefresh), AVG(ResolutionWidth) FROM mart.hits GROUP BY WatchID, ClientIP ORDER BY c DESC LIMIT 10
