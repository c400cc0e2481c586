"""Worklease beside other queues that keep their jobs in PostgreSQL, measured in one run."""
