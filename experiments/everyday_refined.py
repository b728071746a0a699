"""What some gradient steps on a sentence's posterior bring: what comes back, and the bound.

    pip install sacrebleu
    python experiments/everyday_refined.py [--model NAME ...] [--steps N ...]

The models that come with the package and those of the book's live walk, on Tatoeba's 3,124 test
sentences: with their encoders' posteriors (no steps), and with those of `RefinedTextVAE`. Written
to results/everyday/refined.json; what is there is not done again, and several processes may work
side by side (five minutes a model, on one thread).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from everyday_quality import compared, loaded
from study import RESULTS, Record, parser_of, selected

import tutvae
from tutvae.evaluation.report import score

LIVE = Path(__file__).parents[1] / "book" / "models"
MODELS: dict[str, str | Path] = {"sentences-8": "sentences-8", "sentences-24": "sentences-24"}
MODELS |= {name: LIVE / name for name in ("rate-4", "rate-8", "rate-16", "rate-24")}
STEPS, SAMPLES = (0, 20), 10


def done(plan: dict[str, Any]) -> dict[str, float]:
    """Measure one model's posteriors after so many steps."""
    trained, texts = loaded(MODELS[plan["model"]]), tutvae.tatoeba().test.texts
    if plan["steps"]:
        trained = trained.refined(plan["steps"])
    encoded = tutvae.EncodedTexts.from_texts(texts, trained.tokenizer_)
    batches = tutvae.Batches(encoded, batch_size=256, shuffle=False)
    scores = score(trained.model_, batches, importance_samples=SAMPLES)
    back = trained.inverse_transform(scores.posterior.loc.float().numpy())
    kl = scores.kl.sum(1).mean().item()
    bound = scores.reconstruction.mean().item() + kl
    return {"bound": bound, "kl": kl} | compared(trained, texts, back)


def table(runs: list[dict[str, Any]]) -> str:
    """A row for each model and number of steps."""
    names = ("bound", "kl", "exact", "tokens", "chrf")
    lines = [" ".join([f"{'model':<12} steps", *(f"{name:>6}" for name in names)])]
    for run in sorted(runs, key=lambda run: (list(MODELS).index(run["model"]), run["steps"])):
        figures = " ".join(f"{run[name]:6.2f}" for name in names)
        lines.append(f"{run['model']:<12} {run['steps']:>5} {figures}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Do what is asked for and not in the record yet, and print the table."""
    choices: dict[str, Any] = {"model": MODELS, "steps": STEPS}
    parser = parser_of(__doc__, RESULTS / "everyday", **choices)
    given = parser.parse_args(arguments)
    record = Record(given.records / "refined.json")
    plans = [{"model": model, "steps": steps} for model in MODELS for steps in STEPS]
    record.complete(selected(plans, given), done)
    print(table(record.runs))


if __name__ == "__main__":
    main()
