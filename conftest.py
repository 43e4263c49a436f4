"""Examples that need a library which is not installed are skipped, and say so."""

import importlib.util

import pytest

NEEDED = {"nbopt/interop/torch": "torch", "docs/howto/torch.rst": "torch", "docs/howto/jax.rst": "jax"}


def pytest_collection_modifyitems(config, items):
    """Mark them; their modules can be imported without the library."""
    for item in items:
        if not isinstance(item, pytest.DoctestItem):
            continue
        path = item.path.relative_to(config.rootpath).as_posix()
        for place, library in NEEDED.items():
            if path.startswith(place) and importlib.util.find_spec(library) is None:
                item.add_marker(pytest.mark.skip(reason=f"{library} is not installed"))
