"""Make an EPUB of the book, by Sphinx, with its formulas in MathML: what `make epub` does.

A reader of EPUBs runs no MathJax, so the one in the built book writes the formulas beforehand.
"""

import html
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright
from print_book import BUILD, chromium

import notebooks

CONFIG = notebooks.ROOT / "_config.yml"
EPUB = notebooks.ROOT / "_build" / "epub"
# What runs in pages runs in no EPUB.
LIVE = notebooks.ROOT / "book" / "_static" / "live"
# Any page with formulas: it brings MathJax, and the book's macros.
MATHS = BUILD / "book" / "notation.html"
SPHINX_MATHS = re.compile(r"\s*\\[(\[](.*)\\[)\]]\s*", re.S)
# Buttons in the header, which an EPUB does not have.
THEME = "sphinx_book_theme"
Write = Callable[[str, bool], str]


def build() -> Path:
    """Let Sphinx write the EPUB, and say where."""
    from jupyter_book.sphinx import build_sphinx

    shutil.rmtree(EPUB, ignore_errors=True)  # what an earlier one left would be packed, too
    settings = yaml.safe_load(CONFIG.read_text("utf-8"))["sphinx"]["config"]
    failed = build_sphinx(
        notebooks.ROOT,
        EPUB,
        noconfig=True,
        path_config=CONFIG,
        builder="epub",
        quiet=True,
        warningiserror=True,
        keep_going=True,
        confoverrides={
            "extensions": [name for name in settings["extensions"] if name != THEME],
            "epub_basename": "book",
            "epub_show_urls": "no",
            "epub_exclude_files": [f"_static/live/{path.name}" for path in LIVE.iterdir()],
            "latex_individualpages": False,  # Jupyter Book asks for it
            "epub_copyright": "Code under the MIT licence, prose under CC BY 4.0.",
            "version": notebooks.version(),
        },
    )
    if failed:
        raise SystemExit("Sphinx could not write the EPUB.")
    return EPUB / "book.epub"


def readable(page: str, write: Write) -> str:
    """A page without what needs JavaScript, and with its formulas written out."""
    soup = BeautifulSoup(page, "html.parser")
    for part in soup.select("script, form, body link, .copybtn, [hidden]"):
        part.decompose()
    for formula in soup.select("span.math, div.math"):
        number = formula.select_one(".eqno")
        if number:
            number.extract()
        tex = SPHINX_MATHS.sub(r"\1", formula.get_text())
        maths = BeautifulSoup(write(tex, formula.name == "div"), "html.parser")
        formula.clear()
        formula.extend([maths, number] if number else [maths])
    return str(soup)


def rewrite(source: Path, target: Path, write: Write) -> None:
    """Copy an EPUB, page for page; its list of contents says which of them hold MathML."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        pages = {
            name: readable(old.read(name).decode(), write)
            for name in old.namelist()
            if name.endswith(".xhtml")
        }
        with_maths = {name for name, page in pages.items() if "<math" in page}
        for entry in old.infolist():
            content = pages.get(entry.filename) or old.read(entry)
            if entry.filename.endswith(".opf"):
                content = declared(content.decode(), with_maths)
            new.writestr(entry, content)


def declared(contents: str, with_maths: set[str]) -> str:
    """The list of an EPUB's files, where those with MathML have to say so."""
    return re.sub(
        r'(<item [^>]*href="([^"]+)")(?![^>]*properties)',
        lambda m: m[1] + (' properties="mathml"' if html.unescape(m[2]) in with_maths else ""),
        contents,
    )


def main() -> None:
    """Write the EPUB to the file that is named."""
    source, target = build(), Path(sys.argv[1])
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        page = browser.new_page()
        page.goto(MATHS.as_uri())
        page.evaluate("window.MathJax.startup.promise.then(() => null)")

        def write(tex: str, display: bool) -> str:
            return page.evaluate(
                "([tex, display]) => MathJax.tex2mmlPromise(tex, { display })", [tex, display]
            )

        rewrite(source, target, write)
        browser.close()


if __name__ == "__main__":
    main()
