"""Preference datasets: which files are read, and how their rows become ours."""
