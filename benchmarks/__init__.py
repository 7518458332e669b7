"""What Millstream costs and how fast it answers, measured on real processes."""
