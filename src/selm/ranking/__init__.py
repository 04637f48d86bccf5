"""Rankers: prompts and candidates in, scores out; and how scores become preference pairs."""
