"""nbopt against live peers: what Paddle and torch do with the same random configurations."""
