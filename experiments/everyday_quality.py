"""How well models of everyday sentences read back, walk and write: what their records lack.

    pip install sacrebleu
    python experiments/everyday_quality.py RUNS --judge RUN [--jobs N] [--record NAME]

RUNS is the folder of `tutvae train experiments/everyday_sentences.toml`; with `--record small`,
that of `everyday_small.toml`. Each run is measured on
the 3,124 test sentences: the share that comes back exactly, greedily from the posterior's mean,
the share of tokens at their place, and chrF; then 200 walks of seven steps between pairs of them
and 1,000 samples, whose words are judged by a language model that was trained apart. Written to
results/everyday/quality.json, or small.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import sacrebleu
import torch
from joblib import Parallel, delayed
from scipy.stats import spearmanr

import tutvae
from tutvae.experiments.provenance import provenance

PAIRS, STEPS, SAMPLES, MONOTONE = 200, 7, 1_000, 0.8
RESULTS = Path(__file__).parents[1] / "results" / "everyday"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def loaded(folder: str | Path) -> Any:
    """A trained model on the fastest device."""
    trained = tutvae.load(folder)
    trained.model_.to(DEVICE)
    return trained


def compared(trained: Any, texts: list[str], back: list[str]) -> dict[str, float]:
    """How much of texts came back, in per cent; chrF as sacrebleu defines it."""
    own, found = (trained.tokenizer_.encode(part) for part in (texts, back))
    pairs = list(zip(own, found, strict=True))
    # Start and end mark are no words.
    right = sum(a == b for x, y in pairs for a, b in zip(x[1:-1], y[1:-1], strict=False))
    plain = [trained.tokenizer_.decode(ids) for ids in own]
    return {
        "exact": 100 * mean(x == y for x, y in pairs),
        "exact_with_case": 100 * mean(x == y for x, y in zip(texts, back, strict=True)),
        "tokens": 100 * right / sum(len(ids) - 2 for ids in own),
        "chrf": sacrebleu.corpus_chrf(back, [plain]).score,
    }


def nats_a_token(judge: Any, texts: list[str]) -> float | None:
    """What a language model pays for a token of some texts, end marks included."""
    texts = [text for text in texts if text]
    if not texts:
        return None
    tokens = sum(len(ids) - 1 for ids in judge.tokenizer_.encode(texts))
    return float(-judge.score_samples(texts, importance_samples=1).sum() / tokens)


def walks(trained: Any, texts: list[str]) -> list[list[str]]:
    """Decode the codes on the lines between pairs of texts, both ends included."""
    ends = torch.from_numpy(trained.transform(texts[: 2 * PAIRS]))
    left, right = ends[0::2, None], ends[1::2, None]
    share = torch.linspace(0, 1, STEPS)[None, :, None]
    lines = (left + share * (right - left)).flatten(0, 1)
    decoded = trained.inverse_transform(lines.numpy())
    return [decoded[i : i + STEPS] for i in range(0, len(decoded), STEPS)]


def drift(walk: list[str]) -> float:
    """Rank correlation of the step with how much nearer a text is to the end than to the start."""
    nearer = [
        sacrebleu.sentence_chrf(text, [walk[-1]]).score
        - sacrebleu.sentence_chrf(text, [walk[0]]).score
        for text in walk
    ]
    return float(spearmanr(range(len(walk)), nearer).statistic)


def measured(folder: Path, judge_folder: Path) -> dict[str, Any]:
    """Everything about one run."""
    begun, trained, judge = provenance(), loaded(folder), loaded(judge_folder)
    texts = tutvae.tatoeba().test.texts
    real = nats_a_token(judge, texts)
    found: dict[str, Any] = {"run": folder.name, "provenance": begun, "real_nats_a_token": real}
    found["samples_nats_a_token"] = nats_a_token(judge, trained.sample(SAMPLES))
    if trained.model_.latent_size == 0:
        return found
    found |= compared(trained, texts, trained.reconstruct(texts))
    taken = walks(trained, texts)
    middle = [text for walk in taken for text in walk[2:-2]]
    drifts = [x for x in map(drift, (w for w in taken if len(set(w)) > 1)) if not np.isnan(x)]
    return found | {
        "walk_different": median(len(set(walk)) for walk in taken),
        "walk_monotone": 100 * mean(x >= MONOTONE for x in drifts) if drifts else 0.0,
        "walk_middle_nats_a_token": nats_a_token(judge, middle),
        "walks": taken[:6],
    }


def main() -> None:
    """Measure every finished run of a folder that is not measured yet."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("runs", type=Path)
    arguments.add_argument("--judge", type=Path, required=True)
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--record", default="quality")
    given = arguments.parse_args()
    record = RESULTS / f"{given.record}.json"
    done = json.loads(record.read_text()) if record.exists() else []
    known = {row["run"] for row in done}
    folders = sorted(path.parent for path in given.runs.glob("*/weights.safetensors"))
    todo = [folder for folder in folders if folder.name not in known]
    parallel = Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for row in parallel(delayed(measured)(folder, given.judge) for folder in todo):
        done.append(row)
        record.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")
        shown = {k: round(v, 2) for k, v in row.items() if isinstance(v, float)}
        print(row["run"], shown, flush=True)


if __name__ == "__main__":
    main()
