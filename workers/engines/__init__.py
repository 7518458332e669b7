"""Engines behind one small interface (`base`), loaded by name only when asked for."""
