"""Recipes: the schema, loading, and the rules of what fits together. Imports no torch."""
