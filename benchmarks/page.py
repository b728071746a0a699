"""The tables and the figure of the page "How fast, and why", from speed.json and gpu.json.

python -m benchmarks.page
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutvae.experiments.records import significant
from tutvae.plots import use_style

ROOT = Path(__file__).resolve().parents[1]
RECORD, OF_A_GPU = ROOT / "benchmarks" / "speed.json", ROOT / "benchmarks" / "gpu.json"
TABLES = ROOT / "book" / "speed_tables.md"
FIGURE = ROOT / "book" / "figures" / "speed.png"
GPU_WAYS = {
    ("fp32", "usual"): "the usual way",
    ("fp32", "eager"): "ours, fp32, step by step",
    ("bf16", "eager"): "bf16, step by step",
    ("fp32", "graph"): "fp32, recorded",
    ("bf16", "graph"): "bf16, recorded",
}
WAYS = {"usual": "the usual way", "fp32": "ours, fp32", "bf16": "ours, bf16"}


def gains(row: dict[str, Any]) -> dict[str, float]:
    """How many times as much each way does as the first."""
    first = next(iter(row["rates"].values()))
    return {way: rate / first for way, rate in row["rates"].items()}


def shares(row: dict[str, Any]) -> dict[str, float]:
    """What part of the machine's matrix rate, in its precision, each way puts to use."""
    precisions = {way: "bf16" if way == "bf16" else "fp32" for way in row["rates"]}
    return {
        way: rate * row["gflop"] / row["matrices"][precisions[way]]
        for way, rate in row["rates"].items()
    }


def named(row: dict[str, Any]) -> str:
    """What is done, and by how many threads."""
    return f"{row['question']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"


def beside_published(row: dict[str, Any]) -> float:
    """Speed of the usual way, as a part of public code's on a machine of the same matrix rate."""
    return row["rates"]["usual"] / row["matrices"]["fp32"] / row["published"]


def tables(record: dict[str, Any]) -> str:
    """All tables in Markdown, each after a comment with its name."""
    parts = {
        "rates": _rates(record["rows"]),
        "shares": _shares([row for row in record["rows"] if row["gflop"]]),
        "machine": _machine(record),
        "parts": _parts(record["parts"]),
        "gpu": _gpu(json.loads(OF_A_GPU.read_text(encoding="utf-8"))),
        "growth": _growth(record["growth"]),
    }
    return "".join(f"<!-- {name} -->\n\n{table}\n\n" for name, table in parts.items())


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column alone is aligned to the left."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|---|" + "--:|" * (len(rows[0]) - 1)
    return "\n".join([head, rule, *body])


def _rates(rows: list[dict[str, Any]]) -> str:
    table = [["a second", *WAYS.values()]]
    for row in rows:
        cells = {way: f"{rate:,.0f}" for way, rate in row["rates"].items()}
        for way, gain in list(gains(row).items())[1:]:
            cells[way] += f" ({significant(gain, 2):g}×)"
        for way, rate in row["rates"].items():
            if row["whole"]:
                cells[way] += f", {row['whole'] / rate:,.0f} s"
        for way, megabytes in (row["megabytes"] or {}).items():
            cells[way] += f", {megabytes:,.0f} MB"
        table.append([f"{named(row)}: {row['unit']}", *(cells.get(way, "") for way in WAYS)])
    return _markdown(table)


def _shares(rows: list[dict[str, Any]]) -> str:
    table = [["part of the matrix rate", *WAYS.values(), "usual way beside public code"]]
    for row in rows:
        found = {way: f"{share:.0%}" for way, share in shares(row).items()}
        beside = f"{beside_published(row):.2f}" if row["published"] else ""
        table.append([named(row), *(found.get(way, "") for way in WAYS), beside])
    return _markdown(table)


def _parts(rows: list[dict[str, Any]]) -> str:
    table = [["part of a step's time", *rows[0]["shares"]]]
    for row in rows:
        found = (f"{share:.0%}" for share in row["shares"].values())
        table.append([f"{row['question']}, {row['precision']}", *found])
    return _markdown(table)


def _machine(record: dict[str, Any]) -> str:
    table = [["matrix products, GFLOP/s", "fp32", "bf16"]]
    for threads, rates in record["machine"]["matrices"].items():
        table.append([f"threads: {threads}", *(f"{rate:,.0f}" for rate in rates.values())])
    hardware, step = record["hardware"], record["machine"]["reference_step_ms"]
    line = (
        f"Measured on {record['started'][:10]} on a processor with {hardware['cores']} cores "
        f"({hardware['processor']}, {record['machine']['instructions']}), PyTorch "
        f"{record['versions']['torch']}, corpus: {record['corpus']}. A reference step, a step of a "
        f"small language model in plain PyTorch, took {step:.1f} ms."
    )
    return f"{line}\n\n{_markdown(table)}"


def _gpu(record: dict[str, Any]) -> str:
    rows = [row for row in record["rows"] if row.get("question", "").startswith("train ")]
    models = dict.fromkeys((row["question"], row["batch"]) for row in rows)
    table = [["tokens a second", *GPU_WAYS.values()]]
    for question, batch in models:
        found = {
            (row["precision"], row["way"]): f"{significant(row['rate'], 3):,.0f}"
            for row in rows
            if (row["question"], row["batch"]) == (question, batch)
        }
        label = f"{question.removeprefix('train ')}, batches of {batch}"
        table.append([label, *(found.get(way, "") for way in GPU_WAYS)])
    about = f"{record['card']}, driver {record['driver']}, PyTorch {record['torch']}"
    return f"Measured on one {about}; corpus: {record['corpus']}.\n\n{_markdown(table)}"


def _growth(rows: list[dict[str, Any]]) -> str:
    table = [["what grows", "exponent", "seconds at each size"]]
    for row in rows:
        seconds = ", ".join(f"{int(size):,}: {taken:.2g}" for size, taken in row["seconds"].items())
        table.append([row["question"], f"{row['exponent']:.2f}", seconds])
    return _markdown(table)


def draw(record: dict[str, Any], path: Path = FIGURE) -> None:
    """Ours against the usual way, and all against the machine's matrix rate."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.8), sharey=True)
    rows = [row for row in record["rows"] if row["gflop"]]
    labels = {"usual way = 1": gains, "part of the matrix rate": shares}
    for ax, (label, measure) in zip(axes, labels.items(), strict=True):
        bars = [
            (named(row), WAYS[way], value)
            for row in rows
            for way, value in measure(row).items()
            if "usual" in row["rates"] or measure is shares
        ]
        names, ways, values = zip(*bars, strict=True)
        sns.barplot(
            x=values,
            y=names,
            hue=ways,
            hue_order=WAYS.values(),
            ax=ax,
            legend=ax is axes[1],
            order=[named(row) for row in rows],
        )
        ax.set(xlabel=label, ylabel="")
    axes[0].axvline(1, color="black", linewidth=0.8)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def write(record: dict[str, Any]) -> None:
    """Write the tables and draw the figure."""
    TABLES.write_text(tables(record), encoding="utf-8")
    draw(record)


if __name__ == "__main__":
    write(json.loads(RECORD.read_text(encoding="utf-8")))
