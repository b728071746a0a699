"""Picture the live walk for the README, in the light and in the dark, from the built book.

make book && .venv/bin/python tools/walk_picture.py
"""

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "_build" / "html" / "book" / "walk.html"
PICTURES = ROOT / "book" / "figures"
COLOURS = 48
# Wide enough for the two fields beside each other; the page's own margins stay outside.
VIEW = {"width": 760, "height": 1000}
HALF_WAY = 30


def walk(page: Page) -> None:
    """Open the page, load the model, and go half of the way."""
    page.goto(PAGE.as_uri())
    page.click("[data-part=start]")
    page.wait_for_function("document.querySelector('[data-part=right-back]').textContent")
    page.evaluate(
        "place => { const slider = document.getElementById('walk-slider');"
        " slider.value = place; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        HALF_WAY,
    )


def keep(page: Page, mode: str) -> None:
    """Write the picture of one colour mode, in few colours."""
    page.evaluate(f"document.documentElement.dataset.theme = '{mode}'")
    picture = Image.open(io.BytesIO(page.locator("#walk").screenshot())).convert("RGB")
    few = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(PICTURES / f"walk_{mode}.png", optimize=True)


def main() -> None:
    """Write both pictures."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW, device_scale_factor=2, reduced_motion="reduce")
        walk(page)
        for mode in ("light", "dark"):
            keep(page, mode)
        browser.close()


if __name__ == "__main__":
    main()
