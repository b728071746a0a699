"""`make nbval` tells what each chapter took, in seconds and in reference steps."""

from types import SimpleNamespace

import pytest

from tools.nbval_times import Times


def reported(nodeid: str, duration: float) -> SimpleNamespace:
    return SimpleNamespace(nodeid=nodeid, duration=duration)


@pytest.fixture
def lines() -> list[str]:
    """What is printed after two cells of one chapter, one of another, and another kind of test."""
    times, printed = Times(iter([30.0, 10.0]).__next__, at_a_time=2), []
    for report in (
        reported("notebooks/01.ipynb::Cell 0", 0.5),
        reported("notebooks/01.ipynb::Cell 1", 1.5),
        reported("notebooks/02.ipynb::Cell 0", 60.0),
        reported("tests/test_a.py::test_b", 9.0),
    ):
        times.pytest_runtest_logreport(report)
    terminal = SimpleNamespace(section=printed.append, line=printed.append)
    times.pytest_terminal_summary(terminal)
    return printed


def test_the_reference_step_is_told_and_how_many_ran_at_a_time(lines: list[str]) -> None:
    assert "30.00 ms before and 10.00 after" in lines[0]
    assert "2 at a time" in lines[0]


def test_a_chapter_is_told_in_seconds_and_reference_steps(lines: list[str]) -> None:
    """A step is the mean of both times."""
    first, second = (line.split() for line in lines[1:])
    assert first == ["2.0", "s", "100", "reference", "steps", "notebooks/01.ipynb"]
    assert second == ["60.0", "s", "3,000", "reference", "steps", "notebooks/02.ipynb"]
