"""Tells how long each chapter took, in seconds and in steps of a small model on this machine.

    python -m pytest -p tools.nbval_times --nbval notebooks/*.ipynb

Seconds depend on the machine, reference steps far less: what a step is says
`benchmarks.machine.reference_step`, which is timed once, before the chapters. Beside another one a
chapter takes longer than by itself.
"""

from collections import Counter

import pytest

from benchmarks.machine import reference_step


class Times:
    """Adds up a run's seconds by notebook, and reports them at its end."""

    def __init__(self, step: float, at_a_time: int) -> None:
        self.step = step  # milliseconds
        self.at_a_time = at_a_time
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what a cell took, with the kernel's start in the first one's."""
        path, _, _ = report.nodeid.partition("::")
        if path.endswith(".ipynb"):
            self.seconds[path] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line for each notebook."""
        title = f"chapters, {self.at_a_time} at a time (a reference step took {self.step:.2f} ms)"
        terminalreporter.section(title)
        for path, seconds in self.seconds.items():
            steps = 1000 * seconds / self.step
            terminalreporter.line(f"{seconds:8.1f} s {steps:9,.0f} reference steps  {path}")


def pytest_configure(config: pytest.Config) -> None:
    """Time the reference step, while nothing else runs: not in the processes of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        at_a_time = config.getoption("numprocesses", None) or 1
        config.pluginmanager.register(Times(reference_step(), at_a_time), "times")
