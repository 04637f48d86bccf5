"""The run: its plan, its artifacts, its workers, and how it is stopped."""
