"""Chapters and glossary lead to each other.

Where a chapter first uses a word of the glossary, the word leads there; below a word's explanation
stand the chapters that use it. The notebooks know nothing of it, so they look as ever elsewhere.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx

CHAPTERS, GLOSSARY = "notebooks/", "book/glossary"
# Words that chapters use in their everyday sense, too.
LEFT_OUT = {"price", "worth"}
NOT_IN = (
    nodes.caption,
    nodes.literal,
    nodes.raw,
    nodes.reference,
    nodes.strong,
    nodes.table,
    nodes.title,
)


def places(app: Sphinx) -> dict[str, str]:
    """The anchor of every word of the glossary."""
    known = app.env.domaindata["std"]["objects"].items()
    words = {name.lower(): anchor for (kind, name), (_, anchor) in known if kind == "term"}
    return {word: words[word] for word in sorted(words, key=len, reverse=True)}


def is_prose(text: nodes.Text) -> bool:
    """Tells whether a text stands in a paragraph, outside links, code and tables."""
    above, within = text.parent, False
    while above is not None:
        if isinstance(above, NOT_IN) or "cell_output" in above.get("classes", ()):
            return False
        within = within or isinstance(above, nodes.paragraph)
        above = above.parent
    return within


def first_uses(
    tree: nodes.document, words: dict[str, str]
) -> Iterator[tuple[nodes.Text, re.Match]]:
    """Where a chapter uses a word for the first time; at most one word of each text."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})s?\b", re.I)
    seen = set(LEFT_OUT)
    for text in list(tree.findall(nodes.Text)):
        if not is_prose(text):
            continue
        new = (match for match in pattern.finditer(text) if match[1].lower() not in seen)
        if match := next(new, None):
            seen.add(match[1].lower())
            yield text, match


def link_words(app: Sphinx, tree: nodes.document, name: str) -> None:
    """In a chapter, let the words lead to the glossary."""
    words = places(app)
    page = app.builder.get_relative_uri(name, GLOSSARY)
    for text, match in first_uses(tree, words):
        uri = f"{page}#{words[match[1].lower()]}"
        link = nodes.reference("", match[0], internal=True, refuri=uri, classes=["glossary-word"])
        before, after = text[: match.start()], text[match.end() :]
        text.parent.replace(text, [nodes.Text(before), link, nodes.Text(after)])


def name_chapters(app: Sphinx, tree: nodes.document, name: str) -> None:
    """In the glossary, let every explanation end with the chapters that use the word."""
    words = places(app)
    users: dict[str, list[str]] = {}
    for chapter in sorted(page for page in app.env.found_docs if page.startswith(CHAPTERS)):
        for _, match in first_uses(app.env.get_doctree(chapter), words):
            users.setdefault(words[match[1].lower()], []).append(chapter)
    for item in tree.findall(nodes.definition_list_item):
        chapters = users.get(item[0]["ids"][0], [])
        if not chapters:
            continue
        said = nodes.paragraph("", "Chapters: " if len(chapters) > 1 else "Chapter: ")
        said["classes"].append("glossary-chapters")
        for chapter in chapters:
            if chapter != chapters[0]:
                said += nodes.Text(", ")
            number = str(int(chapter.removeprefix(CHAPTERS)[:2]))
            uri = app.builder.get_relative_uri(name, chapter)
            said += nodes.reference("", number, internal=True, refuri=uri)
        item[-1] += said


def lead_both_ways(app: Sphinx, tree: nodes.document, name: str) -> None:
    """Called for every page before it is written."""
    if name.startswith(CHAPTERS):
        link_words(app, tree, name)
    elif name == GLOSSARY:
        name_chapters(app, tree, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("doctree-resolved", lead_both_ways)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
