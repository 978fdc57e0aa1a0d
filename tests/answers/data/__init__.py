"""Data for the published query sets, made by DuckDB: the same rows for the same scale, everywhere."""
