"""Served functions: decorated Python behind the same queue as language models."""
