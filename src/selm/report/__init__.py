"""The report of a run: tables, statistics and figures."""
