"""Run every chapter alone, as a reader does in Colab: what `make colab` does.

In Colab's image the package is installed beside what is there, and may change nothing of it.
Elsewhere it goes into a new environment, as a wheel, with what runs a notebook and nothing else.
Each chapter then runs in an empty folder, with no repository around it. The first that fails is
named, and ends it.
"""

import difflib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALONE, RAN = ROOT / "_build" / "alone", ROOT / "_build" / "colab"
RUNNERS = ("ipykernel", "nbconvert")
# Where code or corpora of this machine might come from.
LEFT_OUT = ("PYTHONPATH", "TUTVAE_DATA")


def in_colab() -> bool:
    """Tells whether this is Colab's image."""
    google = importlib.util.find_spec("google")
    return google is not None and importlib.util.find_spec("google.colab") is not None


def pip(python: str, *arguments: str) -> str:
    """Run pip and return what it prints."""
    command = [python, "-m", "pip", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def beside_colab() -> str:
    """Install the package into Colab's own environment; return its Python."""
    freeze = ("freeze", "--exclude", "tutvae")
    before = pip(sys.executable, *freeze).splitlines()
    pip(sys.executable, "install", "--quiet", ".")
    after = pip(sys.executable, *freeze).splitlines()
    if changed := list(difflib.unified_diff(before, after, n=0, lineterm="")):
        raise SystemExit("\n".join(["Installing the package changed others:", *changed]))
    return sys.executable


def new_environment() -> str:
    """Install the package's wheel into an environment of its own; return that one's Python."""
    venv.create(ALONE, clear=True, with_pip=True)
    python = str(ALONE / "bin" / "python")
    pip(python, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(ALONE), ".")
    wheel = str(next(ALONE.glob("tutvae-*.whl")))
    pip(python, "install", "--quiet", "--constraint", "requirements.txt", wheel, *RUNNERS)
    return python


def run_alone(python: str, chapter: Path) -> None:
    """Run a copy of a chapter in an empty folder; what it shows then lies in _build/colab."""
    start = time.perf_counter()
    variables = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(chapter, folder)
        command = [python, "-m", "nbconvert", "--execute", "--to", "notebook", "--log-level=ERROR"]
        ran = subprocess.run(
            [*command, f"--output-dir={RAN}", chapter.name], cwd=folder, env=variables
        )
    if ran.returncode:
        raise SystemExit(f"{chapter.name} failed.")
    print(f"{chapter.name}: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> None:
    """Run the chapters that are named."""
    python = beside_colab() if in_colab() else new_environment()
    shutil.rmtree(RAN, ignore_errors=True)
    for chapter in sys.argv[1:]:
        run_alone(python, Path(chapter).resolve())


if __name__ == "__main__":
    main()
