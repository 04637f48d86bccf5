"""Compares finished runs: settings and their seeds, with intervals that include both."""
