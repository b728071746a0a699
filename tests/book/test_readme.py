"""The README's example does what it says, as a newcomer would paste it."""

import re
import subprocess
import sys
from pathlib import Path


def test_the_example_walks_between_two_sentences(root: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), re.S)[1]
    assert len([line for line in example.splitlines() if line]) < 15
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    walk = run.stdout.splitlines()
    assert len(walk) == 5
    assert len(set(walk)) >= 3, "the code is used"
    assert run.stderr == ""
