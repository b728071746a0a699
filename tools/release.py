"""Make a release of a clean checkout: python tools/release.py 0.3.0.

Writes the version and today's date where they stand, builds sdist and wheel into `dist/`, commits
and tags. Nothing is pushed.
"""

import argparse
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str) -> str:
    """Runs a command in the checkout and returns what it prints; if it fails, so do we."""
    return subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def rewrite(name: str, *changes: tuple[str, str]) -> None:
    """Replaces, in a file, the line that each pattern matches."""
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    for pattern, line in changes:
        text = re.sub(f"^{pattern}$", line, text, count=1, flags=re.M)
    path.write_text(text, encoding="utf-8")


def check(version: str) -> None:
    """Exits, and says why, where there is nothing to release under that version."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version!r} is no version: make release VERSION=x.y.z")
    if run("git", "status", "--porcelain"):
        sys.exit("the tree is not clean: commit what belongs to the release, stash the rest")
    if run("git", "tag", "--list", f"v{version}"):
        sys.exit(f"there is a tag v{version} already: choose the next version")
    if not re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", changes, re.M):
        sys.exit(f"CHANGELOG.md has no entry: tell under '## [Unreleased]' what {version} brings")


def main() -> None:
    """Releases the version that the command line names."""
    parser = argparse.ArgumentParser(description="Build, commit and tag a release.")
    parser.add_argument("version", help="x.y.z")
    version = parser.parse_args().version
    check(version)
    today = datetime.now(timezone.utc).date().isoformat()
    rewrite("CHANGELOG.md", (r"## \[Unreleased\]", f"## [{version}] - {today}"))
    rewrite("tutvae/__init__.py", ("__version__ = .+", f'__version__ = "{version}"'))
    rewrite(
        "CITATION.cff",
        ("version: .+", f"version: {version}"),
        ("date-released: .+", f"date-released: {today}"),
    )
    chapters = sorted(map(str, ROOT.glob("notebooks/*.ipynb")))
    run(sys.executable, "tools/notebooks.py", "--keep-outputs", *chapters)
    run(sys.executable, "-m", "hatchling", "build", "-d", "dist")
    if run("git", "status", "--porcelain"):
        run("git", "commit", "--quiet", "--all", "--message", f"Release {version}")
    run("git", "tag", "--annotate", f"v{version}", "--message", f"tutvae {version}")
    print(f"dist/ holds {version}; publish it with: git push origin HEAD v{version}")


if __name__ == "__main__":
    main()
