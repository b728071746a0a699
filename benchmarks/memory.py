"""Does memory stay flat while a model trains? What is in use, and what the process holds of it.

Trains an LSTM 300/256/16 on sentences of the Penn Treebank in half precision for 50 epochs, each of
which mixes the batches anew, and writes `memory.json`. "In use" is what the C library has given out
and not got back, "held" what it got back and keeps, in pieces between blocks that are in use. `fit`
returns these pieces to the system after each epoch; without that the process had 3.7 GB in the end.
What is in use grows until oneDNN has a kernel for every shape of batch, or as many as it keeps.

    TUTVAE_DATA=data OMP_NUM_THREADS=1 python -m benchmarks.memory
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path

import torch

import tutvae
from benchmarks.common import V, documents
from tutvae.experiments.provenance import provenance
from tutvae.experiments.tables import aligned
from tutvae.models import LSTMDecoder, LSTMEncoder, TextVAE

EPOCHS, DOCUMENTS, SHOWN = 50, 3_200, (1, 2, 3, 5, 10, 20, 30, 40, 50)
RECORD = Path(__file__).with_suffix(".json")


class MallocInfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns, in bytes."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


def memory() -> dict[str, int]:
    """Megabytes: in use, held besides, and resident in all (code and libraries included)."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = MallocInfo
    info = library.mallinfo2()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    found = {"in use": info.uordblks + info.hblkhd, "held": info.fordblks, "resident": resident}
    return {name: round(value / 1e6) for name, value in found.items()}


class Watched:
    """Batches that note the memory before an epoch begins: that after the one before."""

    def __init__(self, batches: tutvae.Batches) -> None:
        self.batches = batches
        self.seen: list[dict[str, int]] = []
        self.epoch = 0

    def __iter__(self) -> Iterator[tutvae.TextBatch]:
        if self.epoch:  # the one before has ended
            self.seen.append({"epoch": self.epoch, **memory()})
        self.epoch += 1
        yield from self.batches


def main() -> None:
    """Train, print the table, write the record."""
    begun = provenance()
    texts, corpus = documents()
    sizes = (V, 300, 256, 16)
    torch.manual_seed(0)
    model = TextVAE(LSTMEncoder(*sizes), LSTMDecoder(*sizes))
    watched = Watched(tutvae.Batches(texts.part(range(DOCUMENTS)), batch_size=32))
    tutvae.fit(model, watched, epochs=EPOCHS + 1, precision="bf16", device="cpu", progress=False)
    rows = [row for row in watched.seen if row["epoch"] in SHOWN]
    print("\n".join(aligned([list(rows[0]), *([str(x) for x in row.values()] for row in rows)])))
    record = {
        "corpus": corpus,
        "documents": DOCUMENTS,
        **begun,
        "megabytes": rows,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
