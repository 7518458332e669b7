"""The OpenAI endpoints: chat completions, completions, models."""
