"""The README's first example, run as it stands on 4,000 everyday sentences.

    python experiments/readme.py

The sentences are those of experiments/defaults.py, read from $TUTVAE_DATA. What the example prints,
and how many seconds of one processor core it took (with OMP_NUM_THREADS=1), is written to
results/own_data/readme.json; a test compares it with the README.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import time
from pathlib import Path

from defaults import tatoeba

from tutvae.experiments.provenance import provenance

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "results" / "own_data" / "readme.json"


def main() -> None:
    """Run the example in a folder that holds nothing but sentences.txt, and record what it says."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)[1]
    sentences = tatoeba().train.texts
    begun = provenance()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        Path(folder, "sentences.txt").write_text("\n".join(sentences) + "\n", "utf-8")
        os.chdir(folder)
        start = time.process_time()
        names: dict[str, object] = {}
        exec(code, names)
        seconds = time.process_time() - start
        os.chdir(ROOT)
    record = {
        "code": code,
        "sentences": len(sentences),
        "output": said.getvalue(),
        "report": str(names["vae"].report_),
        "processor_seconds": round(seconds),
        "provenance": begun,
    }
    RECORD.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(record["output"], record["report"], f"{seconds:.0f} s", sep="\n")


if __name__ == "__main__":
    main()
