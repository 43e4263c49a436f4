"""What nbopt and its peers do with hostile input, found out by doing it."""
