"""Clusters that nobody labelled, beside known classes: figures and the maps of chapter 9.

    python experiments/clusters.py

Three corpora: generated reviews and their five categories, AG News and its four topics, Yelp and
its five stars. On each, clusters of the very documents that a method was fitted to, by k-means on
TF-IDF and on LSA, LDA, a mixture on LSA, k-means on a frozen sentence encoder (the extra
`rivals`), a mixture on the codes of a VAE, and a latent label; five seeds each. On the reviews,
what becomes of the label under other floors, temperatures and ramps. Of AG News, three
maps, and the words that tell the clusters of a latent label.

Stop words are left out of the real corpora for all but the frozen encoder, which reads the texts
as they are. No method is told a label. The sizes, learning rates and epochs of our models were
chosen on seed 0 of the reviews and of AG News with the labels in sight, in some ten tries; the
rivals' are those of scikit-learn's example on clustering texts. Written to results/clusters/, run
by run: what is there already is not done again. About an hour of one core.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, LatentDirichletAllocation, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import tutvae
from tutvae import models, schedules
from tutvae.evaluation.in_order import rows_of
from tutvae.evaluation.rivals import sentence_features
from tutvae.experiments.provenance import provenance
from tutvae.experiments.records import significant

RECORDS = Path(__file__).parents[1] / "results" / "clusters"
SEEDS = range(5)
WORDS, LONGEST, MAPPED, NEAREST, WRITTEN = 10_000, 200, 1_500, 10, 50
# Of the mixture's VAE and of the latent label: Z, hidden size, learning rate and epochs.
SIZES: dict[str, dict[str, tuple[int, int, float, int]]] = {
    "reviews": {"mixture": (8, 32, 4e-3, 4), "label": (2, 32, 1e-2, 8)},
    "ag_news": {"mixture": (8, 64, 5e-3, 6), "label": (2, 64, 5e-3, 8)},
    "yelp": {"mixture": (8, 64, 5e-3, 4), "label": (2, 64, 5e-3, 5)},
}
BATCH = {"reviews": 32, "ag_news": 64, "yelp": 64}
OFTEN, TOP = 40, 9
KEYS = {"corpus", "method", "seed", "options"}
FLOOR = 0.75  # of ln K, the most that a label can say


class Documents:
    """The documents of a corpus, each in the forms that the methods read."""

    def __init__(self, name: str) -> None:
        self.name = name
        part = self._reviews() if name == "reviews" else self._real()
        self.raw, self.labels = part.texts, np.array(part.labels)
        self.names, self.classes = part.label_names, len(part.label_names)
        read = CountVectorizer(stop_words="english").build_analyzer()
        real = name != "reviews"
        self.texts = [" ".join(read(text)) for text in self.raw] if real else self.raw
        self.tokenizer = tutvae.Tokenizer.train(self.texts, max_vocabulary=WORDS)
        self.rows = [row[:LONGEST] for row in self.tokenizer.encode(self.texts)]
        self.encoded = tutvae.EncodedTexts(self.rows, pad_id=self.tokenizer.pad_id)

    def _reviews(self) -> Any:
        """The reviews of chapter 9, written to differ in category and stars alone."""
        words = {"nouns": 3, "verbs": 2, "adjectives": 3, "fillers": 2, "vagueness": 0.05}
        patterns = {"sentences": (5, 5), "openings": 1, "follow_ups": 4}
        fixed = {"persons": 1, "tenses": 1, "star_noise": 0.5}
        self.grammar = tutvae.ReviewGrammar(**words, **patterns, **fixed)
        return self.grammar.corpus(train=3_000, valid=10, test=1_000, seed=0).train

    def _real(self) -> Any:
        """The first documents of the training part."""
        count = {"ag_news": 6_000, "yelp": 5_000}[self.name]
        train = getattr(tutvae, self.name)().train
        labels = train.labels[:count]
        return tutvae.Texts(train.texts[:count], labels, label_names=train.label_names)

    @cached_property
    def tfidf(self) -> Any:
        """Counts weighted by how rare a word is, `[N, V]`, sparse."""
        return TfidfVectorizer(sublinear_tf=True, max_features=WORDS).fit_transform(self.texts)

    @cached_property
    def counts(self) -> Any:
        """How often each word occurs, `[N, V]`, sparse."""
        return CountVectorizer(max_features=WORDS).fit_transform(self.texts)

    @cached_property
    def features(self) -> np.ndarray:
        """The frozen sentence encoder's, `[N, 384]`."""
        return sentence_features(self.raw)

    def batches(self) -> tutvae.Batches:
        """All documents, to be read once."""
        return tutvae.Batches(self.encoded, batch_size=500, shuffle=False)


def kmeans(points: Any, classes: int, seed: int) -> np.ndarray:
    """The nearest of K centres, the best of ten starts."""
    return KMeans(classes, n_init=10, random_state=seed).fit_predict(points)


def lsa(documents: Documents, size: int, seed: int) -> np.ndarray:
    """TF-IDF in a few dimensions, every document of length 1."""
    size = min(size, documents.tfidf.shape[1] // 2)
    steps = TruncatedSVD(size, random_state=seed), Normalizer()
    return make_pipeline(*steps).fit_transform(documents.tfidf)


def lda(documents: Documents, seed: int) -> np.ndarray:
    """The topic with the largest share."""
    options = {"max_iter": 20, "learning_method": "online", "batch_size": 256}
    topics = LatentDirichletAllocation(documents.classes, random_state=seed, **options)
    return topics.fit_transform(documents.counts).argmax(1)


def start_at_frequencies(decoder: torch.nn.Module, documents: Documents) -> None:
    """Let a decoder begin with how often each word occurs, which takes many steps to learn."""
    tokens = np.concatenate([row[1:] for row in documents.rows])
    counts = np.bincount(tokens, minlength=len(documents.tokenizer)) + 0.5
    with torch.no_grad():
        decoder.output.bias.copy_(torch.tensor(np.log(counts / counts.sum())))


def fit(model: Any, batches: Any, epochs: int, learning_rate: float, ramp: float) -> Any:
    """Train a model; the KL weight rises to 1 in the first part `ramp` of the run."""
    steps = int(ramp * epochs * len(batches))
    tutvae.fit(
        model,
        batches,
        epochs=epochs,
        optimizer=torch.optim.Adam(model.parameters(), lr=learning_rate),
        scheduler="cosine",
        kl_weight=schedules.linear(steps) if steps else 1.0,
        max_grad_norm=5.0,
        progress=False,
    )
    return model.eval()


def vae_codes(documents: Documents, seed: int, latent_size: int | None = None) -> torch.Tensor:
    """The codes of a VAE that reads and writes bags of words, `[N, Z]`."""
    Z, H, learning_rate, epochs = SIZES[documents.name]["mixture"]
    Z, V = latent_size or Z, len(documents.tokenizer)
    torch.manual_seed(seed)
    model = tutvae.TextVAE(models.BagEncoder(V, H, H, Z), models.BagDecoder(V, H, H, Z))
    start_at_frequencies(model.decoder, documents)
    options = {"batch_size": BATCH[documents.name], "seed": seed}
    fit(model, tutvae.Batches(documents.encoded, **options), epochs, learning_rate, 0.5)
    return tutvae.encode(model, documents.batches()).loc


def latent_label(
    documents: Documents,
    seed: int,
    decoder: str = "bag",
    floor: float = FLOOR,
    temperature: str = "falling",
    marginal: str = "gumbel",
    ramp: float = 0.0,
) -> Any:
    """Train the model of chapter 8 without any label; the floor is a share of ln K."""
    Z, H, learning_rate, epochs = SIZES[documents.name]["label"]
    V, K = len(documents.tokenizer), documents.classes
    torch.manual_seed(seed)
    if decoder == "bag":
        parts = models.BagEncoder(V, H, H, Z), models.BagDecoder(V, H, H, Z + K)
        start_at_frequencies(parts[1], documents)
    else:
        parts = (
            models.LSTMEncoder(V, 32, 32, 8, pooling="max"),
            models.DilatedConvDecoder(V, 32, 32, 8 + K, dilations=[1]),
        )
        learning_rate, epochs = 4e-3, 4
    batches = tutvae.MixedBatches(
        None, documents.encoded, batch_size=BATCH[documents.name], seed=seed
    )
    steps = epochs * len(batches)
    model = tutvae.SemiSupervisedTextVAE(
        *parts,
        K,
        marginal=marginal,
        temperature=1.0 if temperature == "constant" else lambda step: 5 * 0.1 ** (step / steps),
        label_kl_floor=floor * math.log(K),
    )
    return fit(model, batches, epochs, learning_rate, ramp)


def entropy(p: np.ndarray) -> np.ndarray:
    """Of distributions `[..., K]`, in nats."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(-1)


def judged(model: Any, documents: Documents, p: np.ndarray) -> dict[str, float]:
    """What a label says, what the model pays, and on reviews whether its decoder listens."""
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = [model(batch).value for batch in documents.batches()]
    K = documents.classes
    found = {
        "label_kl": float(math.log(K) - entropy(p).mean()),
        "information": float(entropy(p.mean(0)) - entropy(p).mean()),
        "bound": -float(torch.cat(bounds).mean()),
    }
    if documents.name != "reviews":
        return found
    fresh = documents.grammar.sample(3_000, seed=99)
    judge = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1_000))
    asked = np.repeat(np.arange(K), WRITTEN)
    texts = tutvae.sample_with_label(model, documents.tokenizer, asked, max_length=80)
    heard = judge.fit(fresh.texts, fresh.labels).predict(texts)
    shuffled = np.random.default_rng(0).permutation(asked)
    return found | {
        "control": float(normalized_mutual_info_score(asked, heard)),
        "control_by_chance": float(normalized_mutual_info_score(shuffled, heard)),
    }


def compared(documents: Documents, clusters: np.ndarray) -> dict[str, Any]:
    """The four numbers, and how many clusters hold a hundredth of the documents."""
    report = tutvae.compare_clusters(documents.labels, clusters)
    names = ("accuracy", "majority_accuracy", "nmi", "ari")
    used = int((np.bincount(clusters) >= len(clusters) / 100).sum())
    return {name: getattr(report, name) for name in names} | {"clusters": used}


def by_label(documents: Documents, seed: int, **options: Any) -> dict[str, Any]:
    """Train a latent label and judge it."""
    model = latent_label(documents, seed, **options)
    p = rows_of(model, documents.batches(), lambda x: model.label_posterior(x).probs).numpy()
    return compared(documents, p.argmax(1)) | judged(model, documents, p)


def mixture(points: Any, documents: Documents, seed: int) -> np.ndarray:
    """The likeliest of K Gaussians."""
    return tutvae.mixture_clusters(torch.as_tensor(points), documents.classes, seed)


METHODS: dict[str, Callable[[Documents, int], np.ndarray]] = {
    "kmeans_tfidf": lambda x, seed: kmeans(x.tfidf, x.classes, seed),
    "kmeans_lsa": lambda x, seed: kmeans(lsa(x, 100, seed), x.classes, seed),
    "mixture_lsa": lambda x, seed: mixture(lsa(x, 8, seed), x, seed),
    "lda": lda,
    "kmeans_encoder": lambda x, seed: kmeans(x.features, x.classes, seed),
    "mixture_codes": lambda x, seed: mixture(vae_codes(x, seed), x, seed),
}


def runs() -> Iterator[dict[str, Any]]:
    """What is to be done: a corpus, a method or the options of a latent label, and a seed."""
    for corpus, seed in product(("reviews", "ag_news", "yelp"), SEEDS):
        for method in (*METHODS, "label_bag"):
            yield {"corpus": corpus, "method": method, "seed": seed}
    changes = product((FLOOR, 0.995), ("falling", "constant"), (0.0, 1.0))
    plans = [dict(zip(("floor", "temperature", "ramp"), plan, strict=True)) for plan in changes]
    plans[0] = {"floor": 0.0}  # in place of the one above
    for options, seed in product([*plans, {"marginal": "enumerate"}], SEEDS):
        yield {"corpus": "reviews", "method": "label_bag", "seed": seed, "options": options}
    for corpus, seed in product(("reviews", "ag_news"), SEEDS):
        options = {"decoder": "convolutions"}
        yield {"corpus": corpus, "method": "label_sequence", "seed": seed, "options": options}


def done(run: dict[str, Any], documents: Documents) -> dict[str, Any]:
    """Do a run; return it with what was found."""
    begun = time.process_time()
    if run["method"] in METHODS:
        clusters = METHODS[run["method"]](documents, run["seed"])
        found = compared(documents, clusters)
    else:
        found = by_label(documents, run["seed"], **run.get("options", {}))
    seconds = {"cpu_seconds": round(time.process_time() - begun, 1)}
    return run | significant(found, 4) | seconds


def telling(documents: Documents, seed: int = 0) -> dict[str, list[str]]:
    """The words that a latent label makes the more probable, by the topic it stands for most."""
    model = latent_label(documents, seed)
    K, words = documents.classes, documents.tokenizer
    label = rows_of(model, documents.batches(), lambda x: model.label_posterior(x).probs).argmax(1)
    with torch.no_grad():
        codes = model.code(torch.zeros(K, model.latent_size), torch.arange(K))
        scores = model.decoder.project(model.decoder.start(codes)[0]).log_softmax(-1)
    often = np.bincount(np.concatenate(documents.rows), minlength=len(words)) >= OFTEN
    scores = (scores - scores.mean(0)).masked_fill(~torch.tensor(often), -torch.inf)
    found = {}
    for k in range(K):
        topic = np.bincount(documents.labels[label == k], minlength=K).argmax()
        top = scores[k].topk(TOP).indices.tolist()
        found[f"{k}: {documents.names[topic]}"] = [words.decode([token]) for token in top]
    return found


def maps(documents: Documents) -> dict[str, Any]:
    """Three ways to put documents on a page, and how many neighbours there share a topic."""
    points = {
        "codes": vae_codes(documents, 0, latent_size=2).numpy(),
        "lsa": PCA(2, svd_solver="arpack", random_state=0).fit_transform(documents.tfidf),
        "encoder": PCA(2, random_state=0).fit_transform(documents.features),
    }
    found: dict[str, Any] = {"words": telling(documents)}
    found["labels"] = documents.labels[:MAPPED].tolist()
    for name, where in points.items():
        nearest = NearestNeighbors(n_neighbors=NEAREST + 1).fit(where).kneighbors(where)[1][:, 1:]
        same = documents.labels[nearest] == documents.labels[:, None]
        flat = significant(where[:MAPPED].ravel().tolist(), 3)
        found[name] = {"neighbours": float(same.mean()), "points": flat}
    return found


def written(name: str, record: dict[str, Any]) -> None:
    """Write a record."""
    text = json.dumps(record, indent=1).replace("\n   ", " ")  # a run, or a list of points, a line
    (RECORDS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Do what is not in the record yet."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    path = RECORDS / "runs.json"
    record: dict[str, Any] = {"command": "python experiments/clusters.py"} | provenance()
    record |= {"runs": []}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
    corpora: dict[str, Documents] = {}
    for run in runs():
        if any(run == {key: kept[key] for key in KEYS & kept.keys()} for kept in record["runs"]):
            continue
        if run["corpus"] not in corpora:
            corpora = {run["corpus"]: Documents(run["corpus"])}
        record["runs"].append(done(run, corpora[run["corpus"]]))
        written("runs", record)
        print(record["runs"][-1], flush=True)
    if not (RECORDS / "maps.json").exists():
        written("maps", provenance() | maps(Documents("ag_news")))


if __name__ == "__main__":
    main()
