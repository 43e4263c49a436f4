"""Libraries that are not there, and those that are and not asked for."""

import pytest

import nbopt as nb
from tests.kernels import python

# An import that finds None in its place is a ModuleNotFoundError.
WITHOUT = "import sys; sys.modules['torch'] = sys.modules['jax'] = None; import nbopt as nb; "


@pytest.mark.parametrize("call", ["adopt", "Optimizer"])
def test_without_torch(call):
    code = f"try:\n    nb.torch.{call}(None)\nexcept ImportError as error:\n    print(error)"
    said = python("-c", f"{WITHOUT}\n{code}")
    assert (
        said.strip() == f'nbopt.torch.{call} needs torch, which is not installed: pip install "nbopt[torch]"'
    )


def test_trees_without_jax():
    said = python("-c", f"{WITHOUT} print(*nb.jax.from_pytree({{'a': [1.0, 2.0]}}))")
    assert said.split() == ["a.0", "a.1"]


def test_rooms_are_entered_on_demand():
    """They are no part of a star import, but `dir` shows them."""
    assert {"jax", "torch"} <= set(dir(nb))
    assert not {"jax", "torch"} & set(nb.__all__)
    used = "import sys, nbopt as nb; nb.ParameterBuffer; print({'torch', 'jax'} & set(sys.modules))"
    assert python("-c", used).strip() == "set()"
