"""Lighter pages: no script that draws icons twice, no menu of formulas, figures of few colours."""

import io
import re
from pathlib import Path

from PIL import Image
from sphinx.application import Sphinx

# The theme's icons are a font; a script of 1.5 MB would draw them once more.
TWICE = re.compile(
    r"\s*<(?:script|link)\b[^>]*(?:js/all\.min\.js|fa-regular-400)[^>]*>(?:</script>)?"
)
COLOURS = 256


def strip_pages(folder: Path) -> None:
    """Take what no page needs out of all pages."""
    for page in folder.rglob("*.html"):
        text = page.read_text("utf-8")
        lighter = TWICE.sub("", text)
        if lighter != text:
            page.write_text(lighter, "utf-8")


def lighten_pictures(folder: Path) -> None:
    """Write pictures again with a palette, where that is smaller."""
    for path in folder.glob("*.png"):
        picture = Image.open(path)
        if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
            picture = picture.convert("RGB")
        if picture.mode == "RGB":
            few = io.BytesIO()
            picture.quantize(COLOURS).save(few, "png", optimize=True)
            if few.tell() < path.stat().st_size:
                path.write_bytes(few.getvalue())


def lighten(app: Sphinx, failed: Exception | None) -> None:
    """Called when the book is built."""
    if failed is None and app.builder.name == "html":
        strip_pages(Path(app.outdir))
        lighten_pictures(Path(app.outdir) / "_images")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this, after the extension that brings MathJax."""
    # Only the parts that `loader` in the settings names, in place of a bundle with a menu.
    app.config.mathjax_path = "mathjax/startup.js"
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
