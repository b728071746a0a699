"""What does a language model pay on the Penn Treebank that reads no word at all?

    python experiments/ptb_inputless.py

Such a model knows one thing of the word to come: its place in the sentence. So it can do no better
than count, place by place, and needs no network. At place t the sentence ends with probability
(ends_t + b h) / (reached_t + b), where h is the share of ends among all tokens; otherwise the word
w has (count_t(w) + a_t p(w)) / (words_t + a_t), where p(w) is its share at any place. How strongly
each place leans on all places, a_t, is chosen on the validation sentences, as b is.

It is the rival of the run "inputless" of ptb_remedies.toml, whose decoder reads its code and no
word, and is measured on the same 1,000 test sentences, and on all of them. The result goes to
results/ptb/inputless.json.
"""

import json
from pathlib import Path

import numpy as np

import tutvae
from tutvae.experiments.provenance import provenance

RECORD = Path(__file__).parents[1] / "results" / "ptb" / "inputless.json"
CONSTANTS = (1, 10, 100, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
MEASURED = 1_000  # as ptb_remedies.toml does, evenly spread


class ByPlace:
    """Words and ends of sentences, counted place by place; the last place is that and beyond."""

    def __init__(self, sentences: list[list[str]]) -> None:
        words = sorted({word for sentence in sentences for word in sentence})
        self.ids = {word: i for i, word in enumerate(words)}
        self.places = max(map(len, sentences)) + 1
        self.counts = np.zeros((self.places, len(words)))
        self.ends = np.zeros(self.places)
        for places, ids in map(self.found, sentences):
            self.counts[places[:-1], ids] += 1
            self.ends[places[-1]] += 1
        self.words = self.counts.sum(1)  # at each place
        self.share = self.counts.sum(0) / self.counts.sum()  # p(w)
        self.a, self.b = np.ones(self.places), 1.0

    def found(self, sentence: list[str]) -> tuple[np.ndarray, list[int]]:
        """The places of a sentence, that of its end included, and its words."""
        places = np.minimum(np.arange(len(sentence) + 1), self.places - 1)
        return places, [self.ids[word] for word in sentence]

    def word_costs(self, place: int, ids: list[int], a: float) -> float:
        """What words at a place cost, if they are no end."""
        p = (self.counts[place, ids] + a * self.share[ids]) / (self.words[place] + a)
        return float(-np.log(p).sum())

    def end_cost(self, places: np.ndarray, b: float) -> float:
        """What it costs to say at each place whether the sentence ends."""
        h = self.ends.sum() / (self.ends.sum() + self.words.sum())
        p = (self.ends + b * h) / (self.ends + self.words + b)
        return float(-np.log1p(-p[places[:-1]]).sum() - np.log(p[places[-1]]))

    def choose(self, sentences: list[list[str]]) -> None:
        """The constants with which held-out sentences are cheapest."""
        found = list(map(self.found, sentences))
        for t in range(self.places):
            here = [
                i
                for places, ids in found
                for place, i in zip(places, ids, strict=False)
                if place == t
            ]
            # Where nothing is held out, all costs are 0 and the largest is taken.
            costs = {a: self.word_costs(t, here, a) for a in reversed(CONSTANTS)}
            self.a[t] = min(costs, key=costs.__getitem__)
        self.b = min(CONSTANTS, key=lambda b: sum(self.end_cost(places, b) for places, _ in found))

    def nats(self, sentences: list[list[str]]) -> float:
        """The mean cost of a sentence."""
        total = 0.0
        for places, ids in map(self.found, sentences):
            total += self.end_cost(places, self.b)
            here = places[:-1]
            p = self.counts[here, ids] + self.a[here] * self.share[ids]
            total -= np.log(p / (self.words[here] + self.a[here])).sum()
        return round(total / len(sentences), 3)


def main() -> None:
    """Count, choose the constants, measure and record."""
    corpus, begun = tutvae.ptb(), provenance()
    train, valid, test = (
        [text.split() for text in split.texts]
        for split in (corpus.train, corpus.valid, corpus.test)
    )
    model = ByPlace(train)
    model.choose(valid)
    few = [test[i * len(test) // MEASURED] for i in range(MEASURED)]
    record = {
        "command": "python experiments/ptb_inputless.py",
        "valid": model.nats(valid),
        "test": {"examples": len(test), "nll": model.nats(test)},
        "test_spread": {"examples": len(few), "nll": model.nats(few)},
        "tokens_spread": sum(len(sentence) + 1 for sentence in few),
        "provenance": begun,
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
