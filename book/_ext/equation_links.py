"""Docstrings and equations lead to each other.

A docstring names its source, "Chapter 5, equation `annealed-elbo`", and the words lead there; below
the equation stands what names it. The notebooks know nothing of it, so they look as ever elsewhere.
"""

import functools
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

CHAPTERS, API = "notebooks/", "book/api/"
NAMED_CHAPTERS = re.compile(r"\bchapters?\s+\d+(?:(?:,| and|, and)\s+\d+)*", re.I)
ONE_CHAPTER = re.compile(r"(?:chapter\s+)?(\d+)", re.I)
EQUATION = re.compile(r"\bequation\s+$", re.I)


def pages(app: Sphinx, folder: str) -> list[str]:
    """The pages of the reference, or the chapters."""
    return sorted(page for page in app.env.found_docs if page.startswith(folder))


def link(app: Sphinx, source: str, page: str, anchor: str, text: nodes.Node) -> nodes.reference:
    """A link from one page to a place in another."""
    uri = app.builder.get_relative_uri(source, page) + (anchor and f"#{anchor}")
    return nodes.reference("", "", text, internal=True, refuri=uri)


def cited_labels(tree: nodes.document) -> Iterator[nodes.literal]:
    """In a page of the reference, the labels that follow the word "equation"."""
    for label in list(tree.findall(nodes.literal)):
        before = label.parent[: label.parent.index(label)]
        if before and isinstance(before[-1], nodes.Text) and EQUATION.search(before[-1]):
            yield label


def link_docstrings(app: Sphinx, tree: nodes.document, name: str) -> None:
    """In the reference, let labels lead to equations, and numbers to chapters."""
    equations = app.env.get_domain("math").equations
    for label in cited_labels(tree):
        page, _ = equations[label.astext()]
        label.replace_self(link(app, name, page, f"equation-{label.astext()}", label.deepcopy()))
    numbers = {str(int(page[len(CHAPTERS) :][:2])): page for page in pages(app, CHAPTERS)}
    for text in list(tree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.literal | nodes.raw | nodes.reference | nodes.title):
            continue
        parts, end = [], 0
        for named in NAMED_CHAPTERS.finditer(text):
            for one in ONE_CHAPTER.finditer(text, named.start(), named.end()):
                chapter = link(app, name, numbers[one[1]], "", nodes.Text(one[0]))
                parts += [nodes.Text(text[end : one.start()]), chapter]
                end = one.end()
        text.parent.replace(text, [*parts, nodes.Text(text[end:])])


@functools.cache
def citing(app: Sphinx) -> dict[str, set[str]]:
    """For every label, the names of the package whose docstrings cite it."""
    found: dict[str, set[str]] = {}
    for page in pages(app, API):
        for label in cited_labels(app.env.get_doctree(page)):
            owner = label.parent
            while not isinstance(owner, addnodes.desc):
                owner = owner.parent
            found.setdefault(label.astext(), set()).update(owner[0]["ids"])
    return found


def name_code(app: Sphinx, tree: nodes.document, name: str) -> None:
    """Below each equation of a chapter, name what cites it, or else what the prose names next."""
    known, cited = app.env.get_domain("py").objects, citing(app)
    equation, below = None, {}
    for node in tree.findall(lambda node: isinstance(node, nodes.math_block | nodes.literal)):
        if node.get("label"):
            equation, below[node] = node, sorted(cited.get(node["label"], ()), key=len)
        elif equation and node.astext() in known:
            below[equation] = below[equation] or [node.astext()]
    for equation, names in below.items():
        said = nodes.paragraph("", "In the package: ", classes=["equation-code"])
        for code in names:
            entry = known[code]
            said += nodes.Text(", " if code != names[0] else "")
            said += link(app, name, entry.docname, entry.node_id, nodes.literal("", code))
        equation.parent.insert(equation.parent.index(equation) + 1, said)


def lead_both_ways(app: Sphinx, tree: nodes.document, name: str) -> None:
    """Called for every page before it is written."""
    if name.startswith(CHAPTERS):
        name_code(app, tree, name)
    elif name.startswith(API):
        link_docstrings(app, tree, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("doctree-resolved", lead_both_ways)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
