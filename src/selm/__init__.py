"""SELM: online, iterative preference alignment (arXiv 2405.19332) as recipes and scripts."""

__version__ = "0.2.0"
