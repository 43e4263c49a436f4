"""Random calls in random order, against a model in plain Python."""
