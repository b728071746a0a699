"""The picture of the package shows every module, once."""

import re
from pathlib import Path


def test_the_picture_shows_every_module_once(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"```\ntutvae/\n(.*?)```", text, re.S)[1]
    shown, folder = [], ""
    for depth, name in re.findall(r"^( +)(\S+)", picture, re.M):
        if name.endswith("/"):
            folder = name
        else:
            shown.append(name if len(depth) == 2 else folder + name)
    package = root / "tutvae"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("[!_]*.py")}
    assert sorted(shown) == sorted(modules)
