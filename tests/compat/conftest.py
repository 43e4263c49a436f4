"""Every test of an object runs in both rooms."""

import pytest

from tests.compat import ROOMS


@pytest.fixture(params=ROOMS.values(), ids=ROOMS)
def room(request):
    return request.param
