"""How much a worker takes on: pure policies, time passed in."""
