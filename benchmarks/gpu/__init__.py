"""Benchmarks that need a GPU machine; each says at its top how it is run."""
