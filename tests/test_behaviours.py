"""What the documentation says that nbopt does with hostile input is what it does."""

from benchmarks.behaviours import nbopt_peer
from tests.behaviours import written


def test_the_page_is_right_about_nbopt():
    for case, cell, now in written(nbopt_peer, "nbopt"):
        assert now == cell, case.about
