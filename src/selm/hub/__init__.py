"""The Hugging Face Hub: the client and the cards."""
