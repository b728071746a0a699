"""Tells how long each chapter took, in seconds and in steps of a small model on this machine.

    python -m pytest -p tools.nbval_times --nbval notebooks/*.ipynb

Seconds depend on the machine, reference steps far less: what a step is says
`benchmarks.machine.reference_step`, which is timed before the chapters and after them, as a machine
that others share is not always as fast. Beside another one a chapter takes longer than by itself.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from benchmarks.machine import reference_step


class Times:
    """Adds up a run's seconds by notebook, and reports them at its end."""

    def __init__(self, measure: Callable[[], float], at_a_time: int) -> None:
        self.measure = measure  # a reference step, in milliseconds
        self.before = measure()
        self.at_a_time = at_a_time
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what a cell took, with the kernel's start in the first one's."""
        path, _, _ = report.nodeid.partition("::")
        if path.endswith(".ipynb"):
            self.seconds[path] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line for each notebook."""
        after = self.measure()
        step = (self.before + after) / 2
        taken = f"a reference step took {self.before:.2f} ms before and {after:.2f} after"
        terminalreporter.section(f"chapters, {self.at_a_time} at a time ({taken})")
        for path, seconds in self.seconds.items():
            steps = 1000 * seconds / step
            terminalreporter.line(f"{seconds:8.1f} s {steps:9,.0f} reference steps  {path}")


def pytest_configure(config: pytest.Config) -> None:
    """Time reference steps while no chapter runs: not in the processes of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        at_a_time = config.getoption("numprocesses", None) or 1
        config.pluginmanager.register(Times(reference_step, at_a_time), "times")
