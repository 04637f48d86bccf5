"""The policy: its weights, its tokenizer, its chat template."""
