"""The table of what was tried, survived and lost counts what happened."""

import pytest
from trials import Trials, summed, table


class Report:
    """As pytest's, as far as the counting looks."""

    def __init__(self, *counts):
        self.user_properties = [("trials", each) for each in counts]


def counted(row, what, good, bad):
    counts = {"row": row, "what": what, "tried": 0, "survived": 0}
    trials = Trials(counts)
    for _ in range(good):
        with trials.one():
            pass
    for _ in range(bad):
        with pytest.raises(ZeroDivisionError), trials.one():
            _ = 1 / 0
    return counts


def test_a_trial_that_raises_is_lost():
    rows = summed(
        [Report(counted(2, "b", 3, 1), counted(1, "a", 1, 0)), Report(counted(2, "b", 2, 2)), Report()]
    )
    assert [(row["row"], row["what"], row["tried"], row["survived"], row["lost"]) for row in rows] == [
        (1, "a", 1, 1, 0), (2, "b", 8, 5, 3),
    ]  # fmt: skip
    assert [line.split() for line in table(rows)] == [
        ["row", "what", "tried", "survived", "lost"],
        ["1", "a", "1", "1", "0"],
        ["2", "b", "8", "5", "3"],
        ["together", "9", "6", "3"],
    ]


def test_the_fixture_counts_where_the_report_finds_it(trials, request):
    with trials(0, "itself").one(3):
        pass
    assert ("trials", {"row": 0, "what": "itself", "tried": 3, "survived": 3}) in request.node.user_properties
