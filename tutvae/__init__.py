"""Variational autoencoders for text, from first principles: the package behind the book.

Data flows one way: data -> bounds, schedules -> models -> evaluation -> training -> generation ->
plots.

`import tutvae` alone is quick: a name is loaded, and torch with it, when it is first used. A line
of `__init__.pyi` adds a name, for Python as for type checkers and editors.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    alias.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOMES:
        here = sys.modules[__name__]
        raise AttributeError(f"module 'tutvae' has no attribute {name!r}", name=name, obj=here)
    home = _HOMES[name]
    if home == __name__:
        return import_module(f"{home}.{name}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """What completion offers, loaded or not."""
    return [*globals(), *__all__]
