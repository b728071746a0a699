"""All benchmarks: prints them, writes benchmarks/speed.json, and from it what the page shows.

TUTVAE_DATA=data python -m benchmarks.speed
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import evaluation, generation, growth, machine, page, parts, training
from benchmarks.common import documents, medians, shown
from tutvae.experiments.provenance import provenance
from tutvae.experiments.records import significant


def of_machine() -> dict[str, Any]:
    """Matrix rates in GFLOP/s, by threads and precision, and the reference step."""
    products = {name: machine.matrix_product(dtype) for name, dtype in machine.PRECISIONS.items()}
    matrices = {}
    for count in (1, 2):
        with machine.threads(count):
            matrices[str(count)] = medians(products, rounds=7)
    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "matrices": matrices,
        "reference_step_ms": machine.reference_step(),
    }


def main() -> None:
    record = provenance() | {"corpus": documents()[1], "machine": of_machine()}
    print(json.dumps(significant(record["machine"], 3)), flush=True)
    rows = []
    for script in (training, evaluation, generation):
        rows += (latest := script.rows())
        print(f"\n{shown(latest)}", flush=True)
    found_parts, grown = parts.rows(), growth.rows()
    print(f"\n{parts.shown(found_parts)}\n\n{growth.shown(grown)}")
    found = {"rows": rows, "parts": found_parts, "growth": grown}
    record |= {name: [asdict(row) for row in part] for name, part in found.items()}
    record = significant(record, 4)
    page.RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    page.write(record)


if __name__ == "__main__":
    main()
