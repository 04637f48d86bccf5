"""The preflight: what is looked at before a run starts."""
