"""The table, row by row; and that it is whole."""

import ast
import inspect
from pathlib import Path

import pytest

from tests.hostile.table import ROWS, Never, Row, See

ROOT = Path(__file__).parents[2]

# Every id that there must be, by family, in the order of the table.
IDS = """
N01 N02 N03 N04 N05 N5d N06 N06b N07 N08 N09 N09b N09c N17 N16 N16d N10 N11 N10n N12 N12n N13 N13b N14 N15
N14c N18 N19 N20 N21 N22 N22b N22c N23 N24 N25 N26 N27
V01 V02 V03 V04 V05 V06 V08
A01 A01v A02 A03 A06 A07 A08 A04 A05
D01 D01b D02 D03 D04 D05 Z01 Z02 Z03
W01 W01b W02 W03 W03e W04 W04d W05 W05b W05c W05e W06 W06b W06c W06d W07 W07b W08 W09 W10 W11 W12 W12b W13 W14
O01 O02 O03 O04 O05 O05n O06 O06n O06i O07 O07b O08 O09 O10 O11 O11b O11c O13 O14 O15 O16 O17 O18 O19 O19b
O20 O20b O21 O21b O21d O22 O23 O24 O25 O25b O26b O26c O27 O28 O29 O30 O31 O34 O34b O36 O19w O06h O06b
P01 Q01 Q02 Q03
S01 S01b S01c S02 S02b S03 S03b S04 S04b S04c S05 S06 S06b S06c S07 S07c S08 S09 S09b S10 S11 S12 S13 S14 S15
S16 S16b S20 S21 S22 S23
F01 F02 F03 F03b F03c F04 F04b F04d F04e F05 F06 F06r F06x F08
C01 C02 C03 C03_workqueue C03_omp C04_workqueue C04_omp C05 B01
PR1 PR2 PR3 PR4 PR5 PR6 PR7 PR8 PR9 PR10 PR11 PR12 PR13 PR14 C03b C04b
"""

CHECKED = [row for row in ROWS if not isinstance(row.check, See | Never)]
TOLD = [row for row in ROWS if isinstance(row.check, See | Never)]
SEEN = sorted({see.node for row in ROWS for see in (row.check, row.more) if isinstance(see, See)})


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of a fork
@pytest.mark.parametrize("row", CHECKED, ids=lambda row: row.id)
def test_row(row: Row, tmp_path, monkeypatch, counted):
    given = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    row.check(**{name: given[name] for name in inspect.signature(row.check).parameters})
    counted("hostile cases")


def test_the_table_is_whole():
    ids = IDS.split()
    assert [row.id for row in ROWS] == ids
    assert len(set(ids)) == len(ids) == 210
    for row in ROWS:
        assert row.given
        assert row.outcome


def test_few_rows_are_told_and_not_shown():
    """Those for which a check would take long, and those of which no test can be made."""
    assert [row.id for row in TOLD] == ["D01", "D01b", "PR1", "PR6", "PR9"]
    assert all(len(row.check.reason) > 10 for row in TOLD if isinstance(row.check, Never))


@pytest.mark.parametrize("node", SEEN)
def test_what_the_table_refers_to_is_a_test(node):
    path, *names = node.split("::")
    scope = ast.parse((ROOT / path).read_text()).body
    for name in names:
        (found,) = [item for item in scope if getattr(item, "name", None) == name]
        scope = found.body
    assert names[-1].startswith("test_")
