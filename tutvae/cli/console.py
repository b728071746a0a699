"""What the commands of `tutvae.cli.main` have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def readable_errors(debug: bool) -> Iterator[None]:
    """Turn an expected error into one message and exit code 1."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has seen enough: the command line knows
        raise
    except (OSError, ValueError, FloatingPointError) as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def note(message: str) -> None:
    """Tell what is no result, on standard error."""
    typer.echo(message, err=True)


def show(lines: list[str] | str, content: Any, as_json: bool) -> None:
    """Print a result, for a person or for a script.

    Args:
        lines: for a person.
        content: the same for a script, ready for JSON.
        as_json: which of the two.
    """
    if as_json:
        typer.echo(json.dumps(content, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(lines if isinstance(lines, str) else "\n".join(lines))
