"""The CUDA backend: the same formulas in loops for a GPU, and the memory that they work on.

Nothing here imports numba.cuda before a CUDA device is asked for.
"""
