"""The words and sentence templates of the generated reviews, which stand in `words.toml`.

A template is a row of tokens: a plain word stands for itself, a name in braces is a slot. A slot
draws one entry from a list, chosen by the category, by the stars or by neither, and inflects it
to the person and the tense of the review. It is one token wide, and bears the name of one of its
words ("her" is also "my", "our" or "their"), with a star where the subject is plural.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from tutvae.data.readers.files import read_toml

CONTENT = read_toml(Path(__file__).with_suffix(".toml"))
# The hidden factors of a review and the names of their values.
FACTORS: dict[str, tuple[str, ...]] = {k: tuple(names) for k, names in CONTENT["factors"].items()}
CATEGORIES, STARS, PERSONS, TENSES = FACTORS.values()

Chooser = Literal["category", "stars", "neither"]
Inflection = Literal["none", "person", "tense", "verb", "plural"]


class Slot(NamedTuple):
    """One slot of the templates."""

    chooser: Chooser  # what picks the list of entries
    # By category, one each and a last one of vague words that suit them all; by stars, one each;
    # otherwise a single list.
    lists: tuple[tuple[str, ...], ...]
    size: str  # the field of the grammar that says how many entries of each list are used
    # "none" takes an entry as it is; "person" and "tense" hold one form a value; "verb" holds base
    # form, third person and past; "plural" is a verb of plural subjects.
    inflection: Inflection = "none"


def inflect(entry: str, inflection: Inflection, person: int, tense: int) -> str:
    """Return the form of `entry` for `PERSONS[person]` and `TENSES[tense]`."""
    if inflection == "none":
        return entry
    forms = entry.split("/")
    if inflection in ("person", "tense"):
        return forms[person if inflection == "person" else tense]
    base, third, past = forms
    if TENSES[tense] == "past":
        return past
    return third if inflection == "verb" and PERSONS[person] == "mum" else base


def _slot(table: dict[str, Any]) -> Slot:
    lists = table["lists"]
    rows = CONTENT["lists"][lists] if isinstance(lists, str) else lists
    return Slot(**table | {"lists": tuple(tuple(row.split()) for row in rows)})


SLOTS: dict[str, Slot] = {name: _slot(table) for name, table in CONTENT["slots"].items()}
OPENINGS: tuple[str, ...] = tuple(CONTENT["openings"])
FOLLOW_UPS: tuple[str, ...] = tuple(CONTENT["follow_ups"])
