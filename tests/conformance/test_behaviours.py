"""What the documentation says that the peers do with hostile input is what they do."""

import importlib

import pytest

from tests.behaviours import written


@pytest.mark.conformance
@pytest.mark.parametrize(("peer", "package"), [("torch", "torch"), ("Paddle", "paddle")])
def test_the_page_is_right_about_the_peers(peer, package):
    pytest.importorskip(package)
    module = importlib.import_module(f"benchmarks.behaviours.{package}_peer")
    for case, cell, now in written(module, peer):
        assert now == cell, case.about
