"""The examples run as they stand, and use what is public alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tutvae
from tutvae import models

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
by_name = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def run(name: str, *arguments: object) -> list[str]:
    """What an example prints, line by line."""
    command = [sys.executable, ROOT / "examples" / f"{name}.py", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_own_sentences(tmp_path: Path) -> None:
    texts = tutvae.ReviewGrammar(sentences=(1, 1), nouns=2).sample(1_500, seed=0).texts
    path = tmp_path / "my.txt"
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    *report, first, _, _, _, last = run("own_sentences", path)
    assert report[0].startswith("150 examples")
    assert first != last, "the code is used"


def test_against_the_entropy() -> None:
    language_model, vae, entropy = (
        float(re.search(r": (\d+\.\d) nats", line)[1]) for line in run("against_the_entropy")
    )
    assert entropy < min(language_model, vae)
    assert max(language_model, vae) < 1.5 * entropy, "both have learnt"


def test_own_decoder() -> None:
    samples = run("own_decoder")
    assert len(samples) == len(set(samples)) == 5


@by_name
def test_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40


@by_name
def test_uses_public_names_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("tutvae"):
            assert node.module == "tutvae.models"
            assert {alias.name for alias in node.names} <= set(models.__all__)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tutvae":
            assert node.attr in tutvae.__all__


def test_the_readme_links_to_them_all() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f"(examples/{path.name})" not in text] == []
