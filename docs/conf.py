"""Sphinx configuration. `sphinx-build -W --keep-going -b html docs docs/_build/html` needs no network.

`pytest --doctest-glob="*.rst" docs` runs the examples on the pages, `pytest nbopt` those in docstrings.
"""

from importlib.metadata import version as installed

project = "nbopt"
author = "nbopt developers"
project_copyright = "2026, nbopt developers"
release = version = installed("nbopt")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build", "behaviours-table.rst", "performance-table.rst"]  # included by other pages
templates_path = ["_templates"]
default_role = "py:obj"  # a link where the name is documented, code elsewhere

autodoc_typehints = "none"  # numpydoc's tables give the types
autosummary_generate = True
numpydoc_show_class_members = False  # _templates/autosummary/class.rst lists them

html_theme = "pydata_sphinx_theme"
html_title = f"nbopt {release}"
html_static_path = ["_static"]
html_theme_options = {"navigation_with_keys": False, "show_prev_next": True}


def hide_constructor(app, what, name, obj, options, signature, returns):
    """A buffer makes parameters; a user does not."""
    return ("", "") if name == "nbopt.Parameter" else None


def setup(app):
    app.connect("autodoc-process-signature", hide_constructor, priority=400)  # before numpydoc
