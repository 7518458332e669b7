"""The public API: `inference.proto` and the stubs generated from it (`make proto`)."""
