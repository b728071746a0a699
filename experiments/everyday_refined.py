"""What some gradient steps on a sentence's posterior bring: what comes back, and the bound.

    pip install sacrebleu
    python experiments/everyday_refined.py [--model NAME ...]

The models that come with the package and those of the book's live walk, on Tatoeba's 3,124 test
sentences: with their encoders' posteriors (no steps), and with those of `RefinedTextVAE`. The rival
of the steps draws codes from the encoder's posterior, for about the time that the steps take, and
keeps the one at which the sentence is most probable; of one code there is no bound. Written
to results/everyday/refined.json; what is there is not done again, and several processes may work
side by side (five minutes a model, on one thread).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from everyday_quality import compared, loaded
from study import RESULTS, Record, parser_of, selected
from torch import Tensor

import tutvae
from tutvae.evaluation.in_order import rows_of
from tutvae.evaluation.report import score

LIVE = Path(__file__).parents[1] / "book" / "models"
MODELS: dict[str, str | Path] = {"sentences-8": "sentences-8", "sentences-24": "sentences-24"}
MODELS |= {name: LIVE / name for name in ("rate-4", "rate-8", "rate-16", "rate-24")}
# A step goes through the decoder twice, and back, which takes twice as long as forth.
STEPS, DRAWS, AT_ONCE, SAMPLES = (0, 20), 120, 20, 10


def plans() -> list[dict[str, Any]]:
    """Each model once with each number of steps, and once with draws."""
    ways = [*({"steps": steps} for steps in STEPS), {"draws": DRAWS}]
    return [{"model": model} | way for model in MODELS for way in ways]


def likeliest(model: tutvae.TextVAE, batch: tutvae.TextBatch) -> Tensor:
    """Of the mean and some draws of each posterior, the code of the most probable words."""
    q = model.posterior(batch)
    best, most = q.loc, model.log_likelihood(batch, q.loc)
    for _ in range(DRAWS // AT_ONCE):
        z = q.sample(torch.Size([AT_ONCE]))
        found, at = model.log_likelihood(batch, z).max(0)
        drawn = z[at, torch.arange(len(at), device=at.device)]
        best = torch.where((found > most)[:, None], drawn, best)
        most = torch.maximum(found, most)
    return best


def done(plan: dict[str, Any]) -> dict[str, float]:
    """Measure one model in one way."""
    trained, texts = loaded(MODELS[plan["model"]]), tutvae.tatoeba().test.texts
    encoded = tutvae.EncodedTexts.from_texts(texts, trained.tokenizer_)
    batches = tutvae.Batches(encoded, batch_size=256, shuffle=False)
    if "draws" in plan:
        torch.manual_seed(0)
        z = rows_of(trained.model_, batches, lambda batch: likeliest(trained.model_, batch))
        return compared(trained, texts, trained.inverse_transform(z.numpy()))
    if plan["steps"]:
        trained = trained.refined(plan["steps"])
    scores = score(trained.model_, batches, importance_samples=SAMPLES)
    back = trained.inverse_transform(scores.posterior.loc.float().numpy())
    kl = scores.kl.sum(1).mean().item()
    bound = scores.reconstruction.mean().item() + kl
    return {"bound": bound, "kl": kl} | compared(trained, texts, back)


def table(runs: list[dict[str, Any]]) -> str:
    """A row for each model and way."""
    names = ("bound", "kl", "exact", "tokens", "chrf")
    lines = [" ".join([f"{'model':<12} {'way':<9}", *(f"{name:>6}" for name in names)])]
    for plan in plans():
        for run in (run for run in runs if plan.items() <= run.items()):
            way = f"{DRAWS} draws" if "draws" in run else f"{run['steps']} steps"
            figures = " ".join(f"{run.get(name, float('nan')):6.2f}" for name in names)
            lines.append(f"{run['model']:<12} {way:<9} {figures}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Do what is asked for and not in the record yet, and print the table."""
    given = parser_of(__doc__, RESULTS / "everyday", model=MODELS).parse_args(arguments)
    record = Record(given.records / "refined.json")
    record.complete(selected(plans(), given), done)
    print(table(record.runs))


if __name__ == "__main__":
    main()
