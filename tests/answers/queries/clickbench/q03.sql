SELECT SUM(AdvEngineID), COUNT(*), AVG(ResolutionWidth) FROM mart.hits
