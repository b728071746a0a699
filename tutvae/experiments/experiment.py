"""What every experiment file is made of: sections, their numbers, and the runs they describe."""

import copyreg
import inspect
import types
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, ValidationError, create_model

from tutvae.experiments.keys import Count, Listed, Name, NotEmpty
from tutvae.training.run_folder import RunFolder


class Section(BaseModel):
    """A part of an experiment file: unknown keys, wrong types, NaN and infinities are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def chosen(cls, table: Any) -> "type[Section]":
        """The class that a table is checked by; those of a registry choose by the table's name."""
        return cls

    @classmethod
    def checked(cls, value: Any) -> Any:
        """Check a table by the class that it chooses."""
        return value if isinstance(value, cls) else cls.chosen(value).model_validate(value)


# What the location of a fault holds besides the keys of the file.
NOT_KEYS = {"a number", "a schedule", "a name", "a list", "[key]"}


@cache
def section_like(
    function: Callable[..., Any], base: type[Section], whole: Any = Count
) -> type[Section]:
    """Make a section whose keys are the typed parameters of a function or a class's constructor.

    They join the fields of `base`, less those in its `hidden`; whole numbers are of type `whole`.
    """
    keys: dict[str, Any] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if name not in {*base.model_fields, *getattr(base, "hidden", ())}:
            default = ... if parameter.default is parameter.empty else parameter.default
            keys[name] = (_checked_type(parameter.annotation, whole), default)
    section = create_model(f"{function.__name__}Section", __base__=base, **keys)
    # Another process makes the class anew.
    copyreg.pickle(section, lambda value: (base.checked, (value.model_dump(),)))
    return section


def _checked_type(hint: Any, whole: Any) -> Any:
    """The type of a key for that of a parameter: whole numbers are bounded, paths are strings."""
    if get_origin(hint) in (Union, types.UnionType):
        options = list(dict.fromkeys(_checked_type(option, whole) for option in get_args(hint)))
        if len(options) == 2 and get_origin(options[0]) is Literal:  # a name, or a list
            return Annotated[
                Annotated[options[0], Tag("a name")] | Annotated[options[1], Tag("a list")],
                Discriminator(lambda value: "a name" if isinstance(value, str) else "a list"),
            ]
        return Union[tuple(options)]  # noqa: UP007
    if get_origin(hint) in (Sequence, list, tuple):
        return Annotated[tuple[_checked_type(get_args(hint)[0], whole), ...], Listed, NotEmpty]  # type: ignore[misc]
    return {int: whole, Any: str, Path: str}.get(hint, hint)


class Context(NamedTuple):
    """What a run is given besides its description and its data."""

    folder: RunFolder  # keeps the run
    identity: dict[str, Any]  # what the run is: its configuration, and the hash of its data
    progress: bool | None  # show a bar; by default only where somebody watches

    def of_fit(self, folder: Path | None = None) -> dict[str, Any]:
        """The arguments of `fit` that let it go on in the run's folder, or in one inside it."""
        path = folder or self.folder.path
        return {"run_folder": path, "configuration": self.identity, "progress": self.progress}


class Run(NamedTuple):
    """One run of an experiment."""

    variant: str  # of the file's variants
    seed: int  # of its labels as of the rest
    experiment: "Experiment"  # the description of this run alone
    keys: dict[str, Any]  # what else tells it from the others

    @property
    def about(self) -> dict[str, Any]:
        """What a record calls it."""
        return {"variant": self.variant, **self.keys, "seed": self.seed}

    @property
    def label(self) -> str:
        """What names its folder."""
        return "-".join(map(str, self.about.values()))


class Experiment(Section):
    """A whole experiment file; each kind of experiment is a class of its own. Chapter 2."""

    # What all runs have in common, or what makes them many.
    common: ClassVar[set[str]] = {"name", "kind", "corpus", "variants"}
    name: Name
    kind: str

    @property
    def is_sweep(self) -> bool:
        """Whether the file describes several runs."""
        return any(getattr(self, key, None) is not None for key in ("seeds", "variants"))

    def configuration(self) -> dict[str, Any]:
        """Every setting with its defaults, ready for JSON; the kind's `model_validate` reads it."""
        return self.model_dump(mode="json", exclude_none=True)

    def alone(self, variant: str) -> list[Run]:
        """The runs of a variant, whose description this is; by default a single one."""
        return [Run(variant, getattr(self, "seed", None) or 0, self, {})]

    def runs(self) -> list[Run]:
        """Spell out the runs of every variant; each one's table is merged into the rest.

        ValueError if a variant does not describe an experiment; the message names its keys.
        """
        if not self.is_sweep:
            return Experiment.alone(self, ONLY_VARIANT)
        found: list[Run] = []
        wrong: list[str] = []
        for variant, overrides in (getattr(self, "variants", None) or {}).items():
            wrong += [
                f"variants.{variant}.{key}: All runs of a sweep have this in common"
                for key in sorted(self.common & set(overrides))
            ]
            table = merged(self.configuration(), overrides)
            del table["variants"]
            try:
                found += type(self).model_validate(table).alone(variant)
            except ValidationError as error:
                wrong += [f"variants.{variant}.{x}" for x in faults(error, table, type(self))]
        if wrong:
            raise ValueError("\n".join(wrong))
        return found or self.alone(ONLY_VARIANT)

    @abstractmethod
    def load(self) -> Any:
        """Load the data that the file names."""

    @abstractmethod
    def facts(self, data: Any) -> dict[str, Any]:
        """What a record tells of the data: `data_sha256`, and what is known without training."""

    @abstractmethod
    def train(self, data: Any, context: Context) -> dict[str, Any]:
        """Do a single run, or go on with it, and keep its model; return what it achieved.

        FloatingPointError if training diverged.
        """

    def figures(self, outcome: dict[str, Any]) -> str:
        """What a finished run achieved, in a few words."""
        report, seconds = outcome["reports"]["test"], outcome["train_seconds"]
        bounds = f"bound {report['bound']:.2f}, NLL {report['importance_weighted_nll']:.2f}"
        return f"test {bounds}, KL {report['kl']:.2f} ({seconds:.0f} s of training)"


# A table with another one of these describes another thing.
DESCRIBING = ("kind", "schedule")
# What the only variant of an experiment without variants is called.
ONLY_VARIANT = "all"


def merged(table: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Merge one parsed file into another, table by table; neither is changed.

    A table that names another `kind` or `schedule` replaces the one it would be merged into.
    """
    result = table | overrides
    for key, value in overrides.items():
        old = table.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            other = any(name in value and value[name] != old.get(name) for name in DESCRIBING)
            result[key] = value if other else merged(old, value)
    return result


def faults(error: ValidationError, table: dict[str, Any], section: type[BaseModel]) -> list[str]:
    """Say what is wrong in a parsed file, a line for each fault: its key and what is allowed."""
    lines = []
    for fault in error.errors():
        keys = [str(key) for key in fault["loc"] if key not in NOT_KEYS]
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            here, part = section, table
            for key in keys[:-1]:
                part = part[key]
                here = next(_sections_in(here.model_fields[key].annotation)).chosen(part)
            message += f"; the keys here are {', '.join(here.model_fields)}"
        lines.append(f"{'.'.join(keys) or 'the file'}: {message}")
    return lines


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)
