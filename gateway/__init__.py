"""The gateway: gRPC in, requests onto the queue, tokens back to the client, each exactly once."""
