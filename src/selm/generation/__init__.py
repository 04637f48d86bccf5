"""Generation: prompts in, responses of the policy out."""
