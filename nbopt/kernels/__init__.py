"""Compiled code: formulas, tables and loops. Knows arrays, and nothing of parameters or optimizers.

`scalars` and `rules` hold every formula as a plain scalar function; `fold` turns the columns of `tables` into
coefficients; `cpu` holds the loops; `bind` compiles them for one rule, dtype and kind of threads.
"""
