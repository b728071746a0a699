"""What a record says, as text: figures of one run, a table of many."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def summary(record: dict[str, Any], split: str = "test") -> str:
    """Tell what a run or a sweep achieved on a split, and how, in nats an example. Chapter 2.

    >>> print(tutvae.summary(tutvae.recorded_result("mnist_vae")).splitlines()[0])
    tutvae train experiments/mnist_vae.toml
    """
    machine = record["hardware"]
    seconds = sum(run["train_seconds"] for run in record.get("runs", [record]))
    return (
        f"{record['command']}\n"
        f"  commit {(record['commit'] or 'unknown')[:12]}, started {record['started'][:10]}\n"
        f"  {machine['accelerator'] or machine['processor']}, {machine['threads']} thread(s), "
        f"torch {record['versions']['torch']}, {seconds / 60:.0f} minutes of training\n\n"
        + (summary_table if "runs" in record else _figures)(record, split)
    )


def _figures(record: dict[str, Any], split: str) -> str:
    report = record["reports"][split]
    figures = {"reconstruction": report["reconstruction"], "KL": report["kl"]}
    figures["bound"] = report["bound"]
    figures[f"NLL, {report['importance_samples']:,} samples"] = report["importance_weighted_nll"]
    if "perplexity" in report:
        figures["L, tokens a document"] = _tokens_per_document(report)
        figures["perplexity"] = report["perplexity"]
        figures["mutual information"] = report["mutual_information"]
    lines = [f"  {report['examples']:,} {split} examples, nats an example"]
    lines += [f"    {name:<22}{value:8.2f}" for name, value in figures.items()]
    units = f"{report['active_units']:5} of {len(report['kl_per_dimension'])}"
    return "\n".join([*lines, f"    active units          {units}"])


def summary_table(record: dict[str, Any], split: str = "test") -> str:
    """Tell what the variants of a sweep achieved on a split, a line each.

    Means and standard deviations over the seeds, in nats an example, and L, the predicted tokens
    a document that a perplexity counts; of classifiers, accuracies.
    """
    if "accuracy" in record["runs"][0]:
        return _accuracy_table(record, split)
    keys = ("bound", "kl", "mutual_information", "importance_weighted_nll", "perplexity")
    rows = [["variant", "seeds", "bound", "KL", "MI", "NLL", "L", "perplexity"]]
    for variant, runs in of_variants(record).items():
        reports = [run["reports"][split] for run in runs]
        cells = [_mean_and_spread([report[key] for report in reports]) for key in keys]
        cells.insert(-1, f"{statistics.mean(map(_tokens_per_document, reports)):.2f}")
        rows.append([variant, str(len(runs)), *cells])
    return "\n".join(aligned(rows))


def _tokens_per_document(report: dict[str, Any]) -> float:
    """L, what a perplexity divides the nats by."""
    return report["tokens"] / report["examples"]


def of_variants(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of a record that have reports, by variant; a single run is of the variant ""."""
    variants = defaultdict(list)
    for run in record.get("runs", [record]):
        if "reports" in run:
            variants[run.get("variant", "")].append(run)
    return variants


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table, a line a row: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return [layout.format(*row) for row in rows]


def _accuracy_table(record: dict[str, Any], split: str) -> str:
    cells: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in record["runs"]:
        cells[f"{run['variant']} {run['method']}"][run["labels"]].append(run["accuracy"][split])
    columns = sorted({labels for row in cells.values() for labels in row})
    rows = [["labels", *map(str, columns)]]
    rows += [[name, *(_mean_and_spread(row[x]) for x in columns)] for name, row in cells.items()]
    lines = aligned(rows)
    lines.append(f"the largest class alone: {record['majority_accuracy']:.2f} on test")
    if "bayes_accuracy" in record:
        lines.append(f"the best possible: {record['bayes_accuracy']['value']:.2f}")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    """The mean, and with more than one value their standard deviation; "" without values."""
    if len(values) < 2:
        return "".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.2f} \N{PLUS-MINUS SIGN} {statistics.stdev(values):.2f}"
