"""Each of the five ideas of docs/performance.md taken away from a trainer, one at a time."""

ABLATIONS = {}
