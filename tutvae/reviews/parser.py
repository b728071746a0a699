"""Exact likelihoods of generated reviews: each sentence is looked up in the templates."""

from collections.abc import Sequence

from tutvae.reviews.templates import Floats, Template


def parse(
    document: str, openings: Sequence[Template], follow_ups: Sequence[Template]
) -> list[Floats]:
    """Return p(sentence | template, factors), `[F]`, of each sentence; [] where one has none.

    No two templates share a sentence, and no document uses a template twice.
    """
    if not document.endswith(" ."):
        return []
    sentences = document.removesuffix(" .").split(" . ")
    found: dict[Template, Floats] = {}
    for number, sentence in enumerate(sentences):
        words = f"{sentence} .".split(" ")
        for template in follow_ups if number else openings:
            likelihood = template.likelihood(words)
            if likelihood is not None:
                found[template] = likelihood
    return list(found.values()) if len(found) == len(sentences) else []
