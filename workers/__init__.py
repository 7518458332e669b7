"""Workers: pull requests from the queue, run them on an engine, publish what it generates."""
