"""Where a record comes from: time, commit, machine, versions and data."""

import hashlib
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tutvae.data.corpus import Corpus, Images, Texts

PACKAGE = Path(__file__).parents[1]


def provenance() -> dict[str, Any]:
    """Describe where and when a run happens: `started` (UTC), `commit`, `hardware`, `versions`.

    The commit is None outside a git checkout, with "+changes" where the sources differ from it.
    """
    versions = {name: version(name) for name in ("tutvae", "torch", "numpy")}
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions},
    }


def hardware() -> dict[str, Any]:
    """Describe the machine: the accelerator if there is one, the processor and its threads."""
    return {
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def data_sha256(corpus: Corpus[Images] | Corpus[Texts]) -> str:
    """Hash every split in order: pixels and labels of images, or documents and labels of texts."""
    digest = hashlib.sha256()
    for split in (corpus.train, corpus.valid, corpus.test):
        if isinstance(split, Images):
            digest.update(split.pixels.numpy().tobytes())
            digest.update(split.labels.numpy().tobytes())
        else:
            # As JSON, a line each: no two lists of documents look the same.
            labels = None if split.labels is None else list(map(int, split.labels))
            for item in (*split.texts, labels):
                digest.update(json.dumps(item).encode() + b"\n")
    return digest.hexdigest()


def _commit() -> str | None:
    """The commit of the package's checkout, marked where the sources differ from it."""
    run: Any = partial(subprocess.check_output, cwd=PACKAGE, stderr=subprocess.DEVNULL)
    try:
        # `HEAD:./` fails in a checkout around that is not the package's, such as with a .venv.
        head = run(["git", "rev-parse", "HEAD", "HEAD:./"]).split()[0].decode()
        return head + ("+changes" if run(["git", "status", "--porcelain", "--", "."]) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
