"""How the bundled model is made: its text, its tokenizer and its training."""
