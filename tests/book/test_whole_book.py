"""The book in one file: what the PDF and the EPUB are made of."""

import re
from xml.etree import ElementTree

import epub
import print_book
import pytest
from bs4 import BeautifulSoup

import notebooks

ARTICLE = """<article class="bd-article"><h1 id="top">A title</h1><script>run()</script>
<a href="#top">here</a> <a href="other.html#x">there</a> <a href="../_downloads/a.json">file</a>
<a href="https://example.org/">far</a> <img src="../_images/a.png"/></article>"""


def test_links_hold_in_the_whole_book() -> None:
    page = BeautifulSoup(ARTICLE, "html.parser")
    known = {"book/this.html", "book/other.html"}
    article = print_book.article("book/this.html", page, known)
    here, there, file, far = (link["href"] for link in article.select("a"))
    assert here == "#" + article.h1["id"] == "#book-this--top"
    assert there == "#book-other--x"
    assert file.startswith("https://")
    assert file.endswith("/_downloads/a.json")
    assert far == "https://example.org/"
    assert article.img["src"] == "../_images/a.png"
    assert article.script is None


def test_an_epub_page_is_xml_and_has_its_formulas_written() -> None:
    asked = []

    def write(tex: str, display: bool) -> str:
        asked.append((tex, display))
        return "<math><mi>x</mi></math>"

    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><body><script>run()</script>a&nbsp;b<br>'
        '<span class="math notranslate">\\(x &lt; 1\\)</span>'
        '<div class="math"><span class="eqno">(1.1)</span>\\[\\begin{split}x\\end{split}\\]</div>'
        "</body></html>"
    )
    found = epub.readable(page, write)
    assert asked == [("x < 1", False), ("\\begin{split}x\\end{split}", True)]
    root = ElementTree.fromstring(found)
    assert "".join(root.itertext()) == "a\u00a0bxx(1.1)"


def test_the_contents_of_an_epub_say_which_pages_hold_formulas() -> None:
    contents = '<item id="a" href="a.xhtml" /><item id="b" href="b.xhtml" />'
    said = epub.declared(contents, {"b.xhtml"})
    assert said == contents.replace('"b.xhtml"', '"b.xhtml" properties="mathml"')


@pytest.mark.parametrize("kind", ["pdf", "epub"])
def test_what_the_introduction_links_to_is_published_with_the_pages(kind: str) -> None:
    read = {
        name: (notebooks.ROOT / name).read_text(encoding="utf-8")
        for name in ("book/intro.md", "Makefile", ".github/workflows/pages.yml")
    }
    assert f"({notebooks.addresses()['Homepage']}book.{kind})" in read["book/intro.md"]
    assert f" _build/html/book.{kind}\n" in read["Makefile"]
    published = re.search(r"run: make (.+)", read[".github/workflows/pages.yml"])[1].split()
    assert kind in published
