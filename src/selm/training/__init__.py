"""Training: the SELM objective, its trainer, and how log-probs get fast."""
