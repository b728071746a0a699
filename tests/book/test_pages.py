"""Every built page in a real browser, on a desk and on a phone, in the light and in the dark."""

import functools
import http.server
import importlib.resources
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import notebooks

pytestmark = pytest.mark.browser

BUILD = notebooks.ROOT / "_build" / "html"
SCRIPTS = Path(__file__).with_name("page_checks.js").read_text(encoding="utf-8")
WIDTHS = {"desk": 1280, "phone": 375}
# The colour modes, and what is asked in each: in the second, what the first cannot have answered.
MODES = {"light": "barriers", "dark": "barriersOfColours"}
HEAVIEST = 2_500_000  # bytes before the reader does anything
# After a resize, though not after loading, the theme takes 300 milliseconds until the tab key stops
# at boxes that scroll.
SETTLED = 350


def built_pages() -> list[str]:
    """The addresses of all pages of the book; its front door only leads to the first of them."""
    found = {path.relative_to(BUILD).as_posix() for path in BUILD.rglob("*.html")}
    pages = {page for page in found if not page.startswith("_static/")} - {"index.html"}
    return sorted(pages) or ["search.html"]


PAGES = built_pages()
CHAPTER_PAGES = [page for page in PAGES if page.startswith("notebooks/")]


@dataclass
class Visit:
    """An open page, with what it asked for and complained about while it loaded."""

    page: Any
    origin: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def strangers(self) -> list[str]:
        """The addresses outside the book that the page asked for."""
        own = (self.origin, "data:", "blob:")
        return [url for url in self.requests if not url.startswith(own)]

    def ask(self, check: str) -> list[Any]:
        """Runs one of the checks in page_checks.js and returns what it found."""
        return self.page.evaluate(f"(() => {{ {SCRIPTS}\n return {check}(); }})()")

    def barriers(self, check: str = "barriers") -> list[str]:
        """What axe-core finds in the page that keeps somebody from reading or using it."""
        if self.page.evaluate("typeof axe === 'undefined'"):
            self.page.evaluate(axe_core())
        return self.ask(check)


@functools.cache
def axe_core() -> str:
    """The script of axe-core, from the package that brings it along."""
    folder = importlib.resources.files("axe_playwright_python")
    return (folder / "axe.min.js").read_text(encoding="utf-8")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin(build: Path) -> Iterator[str]:
    """The address at which the built book is served."""
    handler = functools.partial(QuietHandler, directory=build)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def reader(browser: Any) -> Iterator[Any]:
    """One reader's browser for all pages, so that what they share is fetched once.

    Colours change at once, with no transition, because this reader prefers reduced motion.
    """
    context = browser.new_context(reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture
def open_page(reader: Any, origin: str) -> Iterator[Any]:
    """A function that opens a page of the book, with its maths typeset and its fonts there."""
    page = reader.new_page()

    def visit(address: str) -> Visit:
        opened = Visit(page, origin)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("console", lambda message: keep_complaint(opened, message))
        page.on("response", lambda response: keep_failure(opened, response))
        page.set_viewport_size({"width": WIDTHS["desk"], "height": 900})
        page.goto(origin + address, wait_until="load")
        page.evaluate("window.MathJax?.startup?.promise?.then(() => null)")
        page.evaluate("document.fonts.ready.then(() => null)")
        return opened

    yield visit
    page.evaluate("localStorage.clear()")  # no test remembers another's search or colours
    page.close()


def keep_complaint(visit: Visit, message: Any) -> None:
    if message.type in ("error", "warning"):
        visit.complaints.append(message.text)


def keep_failure(visit: Visit, response: Any) -> None:
    if response.status >= 400:
        visit.complaints.append(f"{response.status} {response.url}")


def faults(visit: Visit) -> Iterator[tuple[str, list[Any]]]:
    """What is wrong with an open page, in every width and colour mode."""
    yield "maths not typeset", visit.ask("mathsNotTypeset")
    yield "pictures without a text, or not loaded", visit.ask("badPictures")
    yield "formulas that the tab key stops at", visit.ask("formulasInTabOrder")
    weight = visit.ask("weight")
    yield "too heavy", weight if sum(size for _, size in weight) > HEAVIEST else []
    for device, width in WIDTHS.items():
        if visit.page.viewport_size["width"] != width:
            visit.page.set_viewport_size({"width": width, "height": 900})
            visit.page.wait_for_timeout(SETTLED)
        for mode, barriers in MODES.items():
            visit.page.evaluate(f"document.documentElement.dataset.theme = '{mode}'")
            yield f"text too faint in {mode} mode on a {device}", visit.ask("faintText")
            yield f"barriers in {mode} mode on a {device}", visit.barriers(barriers)
        yield f"wider than a {device}", visit.ask("tooWide")
        yield f"equations wider than a {device}", visit.ask("wideEquations")
    yield "requests to other hosts", visit.strangers()
    yield "complaints in the console", visit.complaints


@pytest.mark.parametrize("address", PAGES)
def test_page_is_sound(open_page: Any, address: str) -> None:
    assert {what: found for what, found in faults(open_page(address)) if found} == {}


def test_the_front_door_leads_to_the_introduction(open_page: Any) -> None:
    page = open_page("search.html").page
    page.goto(page.url.replace("search.html", "index.html"), wait_until="commit")
    page.wait_for_url("**/book/intro.html", timeout=10_000)


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_the_colour_mode_is_the_one_that_the_reader_prefers(
    browser: Any, origin: str, preferred: Any
) -> None:
    context = browser.new_context(color_scheme=preferred)
    page = context.new_page()
    page.goto(origin + "search.html")
    assert page.evaluate("document.documentElement.dataset.theme") == preferred
    context.close()


def ground(picture: Any) -> tuple[int, ...]:
    """The colour in the corner of a picture, as the reader sees it."""
    seen = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
    return seen.getpixel((8, 8))  # further in than the round corner


def test_dark_pages_turn_their_plots_and_dim_their_pictures_of_data(open_page: Any) -> None:
    page = open_page(CHAPTER_PAGES[0]).page
    plot = page.locator("div.cell:not(.tag_keeps-colours) .cell_output img").first
    data = page.locator("div.cell.tag_keeps-colours .cell_output img").first
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert ground(plot) == ground(data) == (255, 255, 255)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert max(ground(plot)) < 40
    assert 150 < min(ground(data)) < 220
    page.emulate_media(media="print")
    assert ground(plot) == ground(data) == (255, 255, 255)


@pytest.mark.parametrize("address", CHAPTER_PAGES)
def test_a_chapter_is_printed_in_black_on_white_and_whole(open_page: Any, address: str) -> None:
    visit = open_page(address)
    visit.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    visit.page.emulate_media(media="print")
    assert visit.ask("faintText") == []
    assert visit.ask("cutOff") == []


def test_what_a_search_marked_is_printed_like_the_rest(open_page: Any) -> None:
    visit = open_page(CHAPTER_PAGES[0])
    visit.page.evaluate("localStorage.setItem('sphinx_highlight_terms', 'encoder')")
    visit.page.reload()
    visit.page.wait_for_selector(".highlighted", state="attached")
    visit.page.emulate_media(media="print")
    assert visit.ask("faintText") == []
    assert not visit.page.is_visible(".highlight-link")


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_reader_chooses_the_colour_mode(open_page: Any, mode: str) -> None:
    page = open_page("search.html").page
    page.evaluate(f"localStorage.setItem('mode', '{mode}')")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == mode


@pytest.mark.parametrize("address", CHAPTER_PAGES)
def test_chapter_and_glossary_lead_to_each_other(build: Path, address: str) -> None:
    words = re.findall(
        r'href="../book/glossary.html#([^"]+)"', (build / address).read_text("utf-8")
    )
    assert len(words) >= 5
    glossary = (build / "book" / "glossary.html").read_text("utf-8")
    assert all(f'id="{word}"' in glossary for word in words)
    assert f'href="../{address}"' in glossary[glossary.index("<article") :]


@pytest.mark.parametrize("address", CHAPTER_PAGES)
def test_chapter_leads_to_colab_and_hides_its_solutions(open_page: Any, address: str) -> None:
    page = open_page(address).page
    links = page.eval_on_selector_all(
        "a[href*='colab.research']", "links => links.map(link => link.href)"
    )
    source = notebooks.ROOT / Path(address).with_suffix(".ipynb")
    assert len(links) >= 2, "a link below the title and a button above it"
    assert set(links) == {notebooks.colab_url(source)}
    solutions = page.locator("div.solution.dropdown")
    assert solutions.count() >= 3
    assert not solutions.first.locator(".toggle-content, section, p").last.is_visible()


@pytest.mark.parametrize(
    ("asked", "page_of_the_answer"),
    [
        ("reparameterisation", "/notebooks/01_basic_vae.html"),
        ("save model", "/book/how_to_use.html"),
        ("own data", "/book/how_to_use.html"),
        ("naive bayes", "/notebooks/08_semi_supervised.html"),
    ],
)
def test_search_finds(open_page: Any, asked: str, page_of_the_answer: str) -> None:
    page = open_page(f"search.html?q={asked.replace(' ', '+')}").page
    page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    page.wait_for_function("/finished/.test(document.querySelector('.search-summary').innerText)")
    found = page.eval_on_selector_all(
        "#search-results ul.search li a", "links => links.map(link => link.pathname)"
    )
    assert page_of_the_answer in found[:5]


BROKEN_PAGE = f"""<!doctype html><html data-theme="light"><body><article class="bd-article">
<p style="color: #999; background: #aaa">A faint paragraph.</p>
<p>Raw \\(x\\) maths.</p><span class="math notranslate">x</span>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" />
<section>An equation:
<mjx-container tabindex="0" display="true" style="display: block; overflow: auto">
<mjx-math style="display: block; width: 3000px">x</mjx-math></mjx-container></section>
<pre style="overflow: auto">{"word " * 500}</pre>
<div style="width: 3000px">wide</div></article></body></html>"""
# In the dark, a picture without a text is shown, a link looks like what stands around it, and a
# button loses its name.
PAGE_OF_TWO_MODES = """<!doctype html><html lang="en" data-theme="light"><head><title>Two</title>
<style>[data-theme="light"] img { display: none }
[data-theme="dark"] span { display: none }
[data-theme="light"] a { text-decoration: underline } a { color: #222; text-decoration: none }
</style></head><body><main><h1>Modes</h1><p>Some text with <a href="#x">a link</a> in it.</p>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" />
<button style="width: 48px; height: 48px"><span>Go</span></button></main></body></html>"""


@pytest.mark.parametrize(
    "check",
    [
        "badPictures",
        "cutOff",
        "faintText",
        "formulasInTabOrder",
        "mathsNotTypeset",
        "tooWide",
        "wideEquations",
    ],
)
def test_the_checks_see_a_broken_page(open_page: Any, check: str) -> None:
    visit = open_page("search.html")
    visit.page.set_content(BROKEN_PAGE)
    assert visit.ask(check) != []


def test_a_barrier_is_seen(open_page: Any) -> None:
    visit = open_page("search.html")
    visit.page.set_content(BROKEN_PAGE)
    assert any(found.startswith("image-alt: <img ") for found in visit.barriers())
    assert visit.barriers("barriersOfColours") == []


def test_a_barrier_of_another_colour_mode_is_seen(open_page: Any) -> None:
    visit = open_page("search.html")
    visit.page.set_content(PAGE_OF_TWO_MODES)
    assert visit.barriers() == []
    visit.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    found = [barrier.split(":")[0] for barrier in visit.barriers("barriersOfColours")]
    assert sorted(found) == ["button-name", "image-alt", "link-in-text-block"]


def test_what_a_page_weighs_is_seen(open_page: Any) -> None:
    weight = dict(open_page("book/walk.html").ask("weight"))
    sizes = {re.sub(r".*/|[?].*", "", address): size for address, size in weight.items()}
    assert sizes["walk.html"] == (BUILD / "book" / "walk.html").stat().st_size
    assert sizes["tutvae.css"] == (BUILD / "_static" / "tutvae.css").stat().st_size


def test_a_request_to_another_host_is_seen(open_page: Any) -> None:
    visit = open_page("search.html")
    visit.page.route("https://example.org/*", lambda route: route.abort())
    visit.page.set_content('<img alt="far" src="https://example.org/picture.png">')
    assert visit.strangers() == ["https://example.org/picture.png"]


def test_the_wheel_that_setup_cells_fall_back_to_lies_beside_the_pages(origin: str) -> None:
    home = re.escape(notebooks.addresses()["Homepage"])
    wheel = re.search(f'"{home}(.+[.]whl)"', notebooks.setup_cell().source)[1]
    assert (BUILD / wheel).is_file()


def test_all_notebooks_lie_beside_the_pages_as_the_introduction_says(origin: str) -> None:
    address = notebooks.addresses()["Homepage"] + "notebooks.zip"
    assert f"({address})" in (notebooks.ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(BUILD / "notebooks.zip") as kept:
        chapters = (notebooks.ROOT / "notebooks").glob("*.ipynb")
        assert sorted(kept.namelist()) == sorted(chapter.name for chapter in chapters)
