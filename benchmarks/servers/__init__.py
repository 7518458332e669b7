"""What Millstream is measured against: the same messages, streamed without a queue."""
