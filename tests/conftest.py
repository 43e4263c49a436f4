"""What the tests count and measure, told at the end of a run: arrays, cases, error inputs, kills; errors."""

from collections import Counter

import pytest

COUNTED, WORST = "nbopt counted", "nbopt worst"


@pytest.fixture
def counted(record_property):
    """`counted("norm arrays", 20_000)` adds to the sums in the summary of the run, over all processes."""

    def count(what, number=1):
        record_property(COUNTED, (what, number))

    return count


@pytest.fixture
def worst(record_property):
    """`worst("error of a norm", 3.1e-16, 2.4e-15)`: the summary has the one nearest to its bound."""

    def keep(what, value, bound):
        record_property(WORST, (what, float(value), float(bound)))

    return keep


def pytest_terminal_summary(terminalreporter):
    sums, errors = Counter(), {}
    for report in terminalreporter.getreports("passed"):
        for name, found in report.user_properties if report.when == "call" else ():
            if name == COUNTED:
                what, number = found
                sums[what] += number
            elif name == WORST:
                what, value, bound = found
                errors[what] = max(errors.get(what, (0.0, 1.0)), (value, bound), key=lambda e: e[0] / e[1])
    if sums or errors:
        terminalreporter.section("counted")
        for what, number in sorted(sums.items()):
            terminalreporter.write_line(f"{number:>10,} {what}")
        for what, (value, bound) in sorted(errors.items()):
            terminalreporter.write_line(f"worst {what}: {value:.2g}, bound {bound:.2g}")
