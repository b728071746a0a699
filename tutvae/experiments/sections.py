"""What every experiment file describes, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

if TYPE_CHECKING:
    from typing_extensions import Self


class Section(BaseModel):
    """A part of an experiment file: unknown keys and wrong types are errors."""

    # Strict: neither true nor "3" passes for a number.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="wrap")
    @classmethod
    def _tell_the_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Pydantic says that a key is unknown; only the section itself can say which are known."""
        try:
            return handler(data)
        except ValidationError as error:
            told = [cls._told(fault) for fault in error.errors()]
            raise ValidationError.from_exception_data(error.title, told) from None

    @classmethod
    def _told(cls, fault: ErrorDetails) -> InitErrorDetails:
        """A fault again; if it is a key of this very section, with those that there are."""
        message = fault["msg"]
        if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            message += f"; the keys here are {', '.join(cls.model_fields)}"
        kind = PydanticCustomError(fault["type"], message)
        return InitErrorDetails(type=kind, loc=fault["loc"], input=fault["input"])


# It names files, so it is no path.
Name = Annotated[str, Field(pattern=r"^[\w-]+$")]


class Experiment(Section):
    """A whole experiment file; each kind of experiment is a class of its own. Chapter 2."""

    name: Name

    def configuration(self) -> dict[str, Any]:
        """Every setting with its defaults, ready for JSON; the kind's `model_validate` reads it."""
        return self.model_dump(mode="json", exclude_none=True)

    def identity(self, data_sha256: str) -> dict[str, Any]:
        """What a run is: its description, and the hash of the data it is given."""
        return {**self.configuration(), "data_sha256": data_sha256}


def faults(error: ValidationError, table: dict[str, Any]) -> list[str]:
    """Say what is wrong in a parsed file, a line for each fault: its key and what is allowed."""
    return [
        f"{'.'.join(_keys(fault['loc'], table, fault['type'])) or 'the file'}: {_message(fault)}"
        for fault in error.errors()
    ]


def _keys(location: tuple[int | str, ...], table: Any, fault: str) -> Iterator[str]:
    """The keys that lead to a fault, without the names that pydantic gives to alternatives."""
    for depth, key in enumerate(location):
        if _inside(table, key):
            table = table[key]
        elif fault != "missing" or depth < len(location) - 1:
            continue
        yield str(key)


def _inside(table: Any, key: int | str) -> bool:
    """Whether a parsed file has such a key, or such a position, here."""
    if isinstance(table, list):
        return isinstance(key, int) and key < len(table)
    return isinstance(table, dict) and key in table


def _message(fault: Mapping[str, Any]) -> str:
    """Pydantic's message, without the name of its error."""
    return fault["msg"].removeprefix("Value error, ")
