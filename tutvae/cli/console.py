"""What the commands have in common: how they read texts, print results and tell errors."""

import inspect
import json
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any, TextIO

import typer

from tutvae.data.readers.utf8 import decode, split_lines

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
# What a command answers: lines for a person, and the same as JSON for a script.
Answer = tuple[list[str] | str, Any]

# What PyTorch says of a number or a size that is too large for it, in errors of several kinds.
TOO_LARGE = re.compile(
    "not enough memory|can't allocate|out of memory|overflow when|without overflow|"
    "multiplication overflow|calculation overflowed",
    re.IGNORECASE,
)
PARSERS = {"json", "tomllib", "tomli"}


def command(function: Callable[..., Answer | None]) -> Callable[..., None]:
    """Give a command readable errors and `--debug`; one that answers is shown and has `--json`."""

    @wraps(function)
    def run(*, debug: bool, as_json: bool = False, **arguments: Any) -> None:
        with readable_errors(debug):
            if (answer := function(**arguments)) is not None:
                show(*answer, as_json)

    # Typer makes the options of what the signature says.
    signature = inspect.signature(function, eval_str=True)
    parameters = list(signature.parameters.values())
    flags = {"as_json": AsJson} if signature.return_annotation is not None else {}
    for name, hint in (flags | {"debug": Debug}).items():
        flag = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint)
        parameters.append(flag.replace(default=False))
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


@contextmanager
def readable_errors(debug: bool) -> Iterator[None]:
    """Turn an error that the user can mend into one message and exit code 1.

    All others are bugs, and keep their traceback. A warning is one line, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
            yield
    except Exception as error:
        sentence = _sentence(error)
        if debug or sentence is None:
            raise
        note(f"error: {sentence}")
        raise typer.Exit(1) from None


def _sentence(error: Exception) -> str | None:
    """What went wrong and what to do; None for a bug, or where nobody reads the output."""
    first_line = str(error).strip().partition("\n")[0]
    if isinstance(error, (MemoryError, OverflowError)) or TOO_LARGE.search(str(error)):
        remedy = "give a smaller size, count or rate; --debug shows where it is needed"
        return f"a number is too large for this computer ({first_line}): {remedy}"
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return None if isinstance(error, BrokenPipeError) else str(error)
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        return None if package == "tutvae" else f"{first_line}: pip install {package}"
    if isinstance(error, ImportError):
        return str(error) if error.name is None else None  # without a name, it is our sentence
    if isinstance(error, RecursionError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals["__name__"].partition(".")[0] in PARSERS:
            return f"a file is nested too deeply to be read ({first_line})"
    return None


def note(message: str) -> None:
    """Tell what is no result, on standard error."""
    typer.echo(_printable(message, sys.stderr), err=True)


def show(lines: list[str] | str, content: Any, as_json: bool) -> None:
    """Print a result: its lines for a person, or its content as JSON for a script."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    if as_json:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    try:
        typer.echo(_printable(text, sys.stdout))
    except BrokenPipeError:
        raise
    except OSError as error:
        # Otherwise Python would try, and fail, once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(f"standard output cannot be written ({error}): make room there") from error


def _printable(text: str, stream: TextIO | None) -> str:
    """A text that can be encoded, and that cannot command a terminal."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if not is_terminal(stream):
        return text
    return "".join(x if x.isprintable() or x in "\n\t" else ascii(x)[1:-1] for x in text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches, or types."""
    return stream is not None and stream.isatty()


def given_texts(arguments: list[str]) -> list[str]:
    """The texts of a command: its arguments, or without any the lines of standard input.

    BadParameter if there are neither; ValueError if a text is not UTF-8.
    """
    if arguments:
        numbered = enumerate(arguments, 1)
        return [decode(os.fsencode(text), f"text {n} of the command") for n, text in numbered]
    if sys.stdin is None or is_terminal(sys.stdin):
        raise typer.BadParameter("give texts, or lines on standard input", param_hint="TEXT")
    return split_lines(decode(sys.stdin.buffer.read(), "standard input"))


def finite(value: float) -> float:
    """Refuse an option that is infinite or no number."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value
