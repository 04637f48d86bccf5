"""Recipes: the schema, loading, and rules about keys that must fit together. Imports no torch."""
