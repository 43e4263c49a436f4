"""The check of nbopt on a GPU, in one run; see `benchmarks.gpu.__main__`."""
