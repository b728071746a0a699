"""Write what chapter 7's page shows word by word, from the record: python tools/live_words.py.

book/_static/live/words.js has test reviews and, for each decoder, the nats that its code saves on
every word; words.html gets the first review as it stands there without JavaScript.
"""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "book" / "_static" / "live"
RECORD = ROOT / "results" / "context" / "words.json"
MUCH = 0.5  # nats from which a word is underlined, as in saved.js


def content() -> dict[str, Any]:
    """Returns the reviews, and what each decoder's code saves on their words."""
    runs = json.loads(RECORD.read_text(encoding="utf-8"))
    decoders = [
        {
            "name": "LSTM" if run["family"] == "lstm" else f"field {run['field']}",
            "kl": round(run["kl"], 1),
            "nats": [[round(nats, 2) for nats in one["nats"]] for one in run["shown"]],
        }
        for run in runs
    ]
    return {"reviews": [one["words"] for one in runs[0]["shown"]], "decoders": decoders}


def coloured(words: list[str], nats: list[float]) -> str:
    """Returns the words as HTML, the darker the more is saved, as saved.js shows them."""
    spans = []
    for word, saved in zip(words, nats, strict=True):
        share = min(1.0, abs(saved) / 2)
        kind = "live-lost" if saved < 0 else "live-saved"
        much = " live-much" if abs(saved) >= MUCH else ""
        spans.append(
            f'<span class="{kind}{much}" style="--share: {share:.2f}">{escape(word)}</span>'
        )
    return " ".join(spans)


def main() -> None:
    """Writes the script, and the first review into the page."""
    found = content()
    script = json.dumps(found, separators=(",", ":"))
    text = f"(globalThis.tutvaeLive ??= {{}}).words = {script};\n"
    (FOLDER / "words.js").write_text(text, encoding="ascii")
    page = FOLDER / "words.html"
    first = coloured(found["reviews"][0], found["decoders"][0]["nats"][0])
    pattern = r'(<p class="live-words" data-part="text">).*?(</p>)'
    html = re.sub(pattern, lambda part: part[1] + first + part[2], page.read_text("utf-8"))
    page.write_text(html, encoding="utf-8")


if __name__ == "__main__":
    main()
