"""The package as a stranger's environment meets it: what it brings, what it leaves alone."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "tutvae").rglob("*.py"))
PYTHONS = [(3, 10), (3, 11), (3, 12), (3, 13)]

# What a Colab machine holds already. Installing the package must change none of it.
COLAB = {
    "annotated-types": "0.7.0",
    "datasets": "4.0.0",
    "filelock": "3.19.1",
    "joblib": "1.5.2",
    "matplotlib": "3.10.0",
    "numpy": "2.0.2",
    "pandas": "2.2.2",
    "pillow": "11.3.0",
    "pydantic": "2.11.9",
    "PyYAML": "6.0.2",
    "safetensors": "0.6.2",
    "scikit-learn": "1.6.1",
    "scipy": "1.16.2",
    "seaborn": "0.13.2",
    "tokenizers": "0.22.1",
    "tomli": "2.2.1",
    "threadpoolctl": "3.6.0",  # of scikit-learn
    "torch": "2.8.0",
    "tqdm": "4.67.1",
    "typer": "0.19.2",
    "typing_extensions": "4.15.0",
}
HEAVY = ("datasets", "matplotlib", "pandas", "scipy", "seaborn", "sklearn")

# What is imported by another name than it is installed by.
CALLED_OTHERWISE = {"sklearn": "scikit-learn"}


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that claims to hold what Colab holds."""
    folder = tmp_path_factory.mktemp("colab")
    run(sys.executable, "-m", "venv", "--without-pip", folder, check=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", where, check=True).stdout.strip())
    for name, version in COLAB.items():
        info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
    return python


def dry_install(python: Path, wheel: Path, report: Path) -> subprocess.CompletedProcess[str]:
    """Asks pip what it would install into `python`'s environment, with nothing to download."""
    options = ["--dry-run", "--no-index", "--quiet", "--report", report]
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check"]
    return run(*pip, "--python", python, "install", *options, wheel)


def with_requirement(wheel: Path, requirement: str, folder: Path) -> Path:
    """Copies a wheel, with one requirement more."""
    changed = folder / wheel.name
    added = f"Requires-Dist: {requirement}\n".encode()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/METADATA"):
                content = content.replace(b"Requires-Dist:", added + b"Requires-Dist:", 1)
            target.writestr(name, content)
    return changed


def test_installing_on_colab_changes_nothing_there(
    wheel: Path, colab: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    asked = dry_install(colab, wheel, report)
    assert asked.returncode == 0, asked.stderr
    wanted = json.loads(report.read_text(encoding="utf-8"))["install"]
    assert [item["metadata"]["name"] for item in wanted] == ["tutvae"]


def test_a_pin_that_would_change_colab_is_caught(wheel: Path, colab: Path, tmp_path: Path) -> None:
    pinned = with_requirement(wheel, "numpy==1.26.4", tmp_path)
    asked = dry_install(colab, pinned, tmp_path / "report.json")
    assert asked.returncode != 0
    assert "numpy==1.26.4" in asked.stderr


def test_the_wheel_holds_the_typed_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    tables = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tutvae/**/*.toml")}
    assert (
        modules | tables | {"tutvae/py.typed", "tutvae/model_card.md", "tutvae/book.mplstyle"}
        <= names
    )
    assert {
        "tutvae/recorded/mnist_vae.json",
        "tutvae/pretrained/sentences-8/tokenizer.json",
    } <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tutvae"}


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        points = configparser.ConfigParser()
        points.read_string(archive.read(entry).decode())
    module, _, attribute = points["console_scripts"]["tutvae"].partition(":")
    assert run(sys.executable, "-c", f"from {module} import {attribute}").returncode == 0


@pytest.mark.parametrize("version", PYTHONS, ids=lambda version: "{}.{}".format(*version))
def test_every_module_is_valid_python(version: tuple[int, int]) -> None:
    for path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=version)
    target = "py{}{}".format(*version)
    options = ["--isolated", "--no-cache", "--select", "E9,F", "--target-version", target]
    linted = run(sys.executable, "-m", "ruff", "check", *options, ROOT / "tutvae")
    assert linted.returncode == 0, linted.stdout


def installed_python(version: tuple[int, int]) -> str | None:
    """Finds a Python of that version that starts, on the path or among pyenv's."""
    name = "python{}.{}".format(*version)
    of_pyenv = (Path.home() / ".pyenv" / "versions").glob("{}.{}.*/bin/python".format(*version))
    candidates = [shutil.which(name), *map(str, of_pyenv)]
    starts = (path for path in candidates if path and run(path, "--version").returncode == 0)
    return next(starts, None)


@pytest.mark.parametrize("version", PYTHONS, ids=lambda version: "{}.{}".format(*version))
def test_every_module_compiles_where_that_python_is_installed(version: tuple[int, int]) -> None:
    python = installed_python(version)
    if python is None:
        pytest.skip("Python {}.{} is not installed".format(*version))
    program = (
        "import sys\nfor p in sys.argv[1:]: compile(open(p, encoding='utf-8').read(), p, 'exec')"
    )
    compiled = run(python, "-c", program, *SOURCES)
    assert compiled.returncode == 0, compiled.stderr


def test_only_the_estimators_and_the_rivals_load_a_heavy_library() -> None:
    """They derive from scikit-learn's classes, and `tutvae.load` from the estimators."""
    program = (
        "import sys, tutvae; "
        "heavy = 'tutvae.estimators', 'tutvae.evaluation.rivals', 'tutvae.saving'; "
        "[getattr(tutvae, name) for name, home in tutvae._HOMES.items() if home not in heavy]; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert run(sys.executable, "-c", program, check=True).stdout.strip() == "[]"


def imported() -> set[str]:
    """The distributions that the package imports, functions' bodies included, by their names."""
    modules = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split(".")[0])
    others = modules - sys.stdlib_module_names - {"tutvae"}
    return {CALLED_OTHERWISE.get(module, module).replace("_", "-") for module in others}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement).group() for requirement in requirements}


def test_what_is_required_is_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = names(project["dependencies"])
    assert required - imported() == set(), "declared and never imported"
    extras = (project["optional-dependencies"][name] for name in ("data", "hub", "rivals"))
    allowed = required.union(*map(names, extras))
    assert imported() - allowed == set(), "imported and not declared"


def test_the_version_is_the_same_everywhere() -> None:
    told = [
        re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.M)[1]
        for name, pattern in [
            ("tutvae/__init__.py", r'^__version__ = "(.+)"$'),
            ("CITATION.cff", r"^version: (.+)$"),
            ("CHANGELOG.md", r"^## \[?(\d[^\] ]*)"),
        ]
    ]
    assert len(set(told)) == 1, told


def test_requirements_are_exact_and_name_no_place() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    loose = [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+(?: ; .+)?", line)]
    assert loose == []
    assert not [line for line in pins if re.match(r"nvidia|cuda|triton", line)]
    assert "torch==2.13.0" in pins
