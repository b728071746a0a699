"""Print the built book into one PDF, through Chromium: what `make pdf` does.

All pages become one, in the order of the book; its links lead within the PDF.
"""

import posixpath
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Playwright, sync_playwright

import notebooks

BUILD = notebooks.ROOT / "_build" / "html"
FIRST = "book/intro.html"
# As deep below the root as the chapter whose head it takes, so that the head finds its files.
WHOLE = "_static/whole_book.html"
LAYOUT = """
  .bd-main, .bd-content, .bd-article-container { display: block !important; max-width: none; }
  article.bd-article { break-before: page; }
  article.bd-article:first-of-type { break-before: auto; }
  article.bd-article h1 { display: block !important; }
"""
FOOT = '<p style="font-size: 8px; margin: auto"><span class="pageNumber"></span></p>'
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pages() -> dict[str, BeautifulSoup]:
    """The pages from the first to the last, each found by the link at the end of the one before."""
    found: dict[str, BeautifulSoup] = {}
    address: str | None = FIRST
    while address:
        found[address] = BeautifulSoup((BUILD / address).read_text("utf-8"), "html.parser")
        link = found[address].select_one("a.right-next")
        address = resolved(address, link["href"]) if link else None
    return found


def resolved(page: str, link: str) -> str:
    """A page's relative link, seen from the root of the book."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def anchor(page: str, name: str = "") -> str:
    """A name that is one page's alone."""
    return f"{page.removesuffix('.html').replace('/', '-')}--{name}"


def is_relative(link: str) -> bool:
    """Tells whether a link leads within the book."""
    return not urlsplit(link).scheme and not link.startswith("#")


def article(page: str, soup: BeautifulSoup, known: set[str]) -> Tag:
    """What a page says, with names and links that hold in the whole book."""
    said = soup.select_one("article.bd-article")
    for script in said.select("script, link"):
        script.decompose()
    for named in said.select("[id]"):
        named["id"] = anchor(page, named["id"])
    for picture in said.select("img[src]"):
        if is_relative(picture["src"]):
            picture["src"] = "../" + resolved(page, picture["src"])
    for link in said.select("a[href]"):
        path, _, name = link["href"].partition("#")
        target = resolved(page, path) if path else page
        if link["href"].startswith("#") or (is_relative(path) and target in known):
            link["href"] = "#" + anchor(target, name)
        elif is_relative(path):
            link["href"] = notebooks.addresses()["Homepage"] + target
    said["id"] = anchor(page)
    return said


def whole_book() -> str:
    """One page with all that the book says, under the head of a chapter."""
    found = pages()
    head = next(soup.head for page, soup in found.items() if page.startswith("notebooks/"))
    articles = "\n".join(str(article(page, soup, set(found))) for page, soup in found.items())
    return (
        f'<!doctype html><html lang="en" data-theme="light">{head}<style>{LAYOUT}</style>'
        '<body><div class="bd-main"><div class="bd-content"><div class="bd-article-container">'
        f"{articles}</div></div></div></body></html>"
    )


def chromium(playwright: Playwright) -> Browser:
    """Start the system's browser, by whatever name."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


def main() -> None:
    """Print to the file that is named."""
    page_file = BUILD / WHOLE
    page_file.write_text(whole_book(), "utf-8")
    try:
        with sync_playwright() as playwright:
            browser = chromium(playwright)
            page = browser.new_page()
            page.set_default_timeout(0)
            page.goto(page_file.as_uri())
            page.evaluate("window.MathJax.startup.promise.then(() => null)")
            margin = dict.fromkeys(("top", "bottom", "left", "right"), "18mm")
            page.pdf(
                path=Path(sys.argv[1]),
                format="A4",
                margin=margin,
                display_header_footer=True,
                header_template="<p></p>",
                footer_template=FOOT,
                outline=True,
                tagged=True,
            )
            browser.close()
    finally:
        page_file.unlink()


if __name__ == "__main__":
    main()
