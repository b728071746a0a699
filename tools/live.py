"""Write a model as a script for the book's pages: python tools/live.py book/models/rate-8.

A page that was opened from a folder may not read files, but it may add a script. This one hands the
tokenizer and the weights to `tutvaeLive.receive`, in book/_static/live/model.js.
"""

import base64
import json
import sys
from pathlib import Path


def script(folder: Path) -> str:
    """Returns the script that brings the model of a folder into a page, by the folder's name."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    weights = base64.b64encode((folder / "weights.safetensors").read_bytes()).decode("ascii")
    # In ASCII, the script does not depend on the encoding that a page takes it to have.
    return f"tutvaeLive.receive({json.dumps(folder.name)}, {json.dumps(tokenizer)}, {weights!r});\n"


if __name__ == "__main__":
    sys.stdout.write(script(Path(sys.argv[1])))
