"""Measures Worklease against its own PostgreSQL; see README.md."""
