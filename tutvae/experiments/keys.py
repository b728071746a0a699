"""What a key of an experiment file may hold: numbers in their bounds, names, lists."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

FP32_MAX = 3.4e38
Count = Annotated[int, Field(gt=0, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, le=FP32_MAX)]
NotNegative = Annotated[float, Field(ge=0, le=FP32_MAX)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=1)]
# It names files, so it is no path.
Name = Annotated[str, Field(pattern=r"^[\w-]+$")]


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("List should have at least one number")
    return values


# Pydantic's own check of a length counts the right items only, and so names a fault too many.
NotEmpty = AfterValidator(_not_empty)
# A TOML array is a list, which strictness would refuse for a tuple.
Listed = Field(strict=False)
Variants = Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], Listed, NotEmpty]
