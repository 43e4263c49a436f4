"""The suite that asv collects; every figure stands beside the same work in plain NumPy."""
