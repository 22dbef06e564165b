"""The Hugging Face Hub: what is asked of it, and what is put there."""
