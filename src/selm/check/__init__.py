"""The preflight: one function per check."""
