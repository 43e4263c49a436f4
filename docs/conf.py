"""Sphinx configuration: `sphinx-build docs docs/_build/html`."""

from importlib.metadata import version as installed

project = "nbopt"
author = "nbopt developers"
project_copyright = "2026, nbopt developers"
release = version = installed("nbopt")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]
default_role = "any"
nitpicky = False

autosummary_generate = True
numpydoc_show_class_members = False  # the class template of autosummary lists them
numpydoc_xref_param_type = False

intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "numba": ("https://numba.readthedocs.io/en/stable", None),
}

html_theme = "pydata_sphinx_theme"
html_title = f"nbopt {release}"
html_theme_options = {"navigation_with_keys": False, "show_prev_next": True}
