"""Random schemas and statements: martd's answers against those of DuckDB's tables over the same files."""
