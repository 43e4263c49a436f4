"""What the tests count, told at the end of a run: arrays, cases, error inputs, kills, fuzz rules."""

from collections import Counter

import pytest

PROPERTY = "nbopt counted"


@pytest.fixture
def counted(record_property):
    """`counted("norm arrays", 20_000)` adds to the sums in the summary of the run, over all processes."""

    def count(what, number=1):
        record_property(PROPERTY, (what, number))

    return count


def pytest_terminal_summary(terminalreporter):
    sums = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == PROPERTY:
                what, number = value
                sums[what] += number
    if sums:
        terminalreporter.section("counted")
        for what, number in sorted(sums.items()):
            terminalreporter.write_line(f"{number:>10,} {what}")
