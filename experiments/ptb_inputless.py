"""What does a language model pay on the Penn Treebank that reads no word at all?

    python experiments/ptb_inputless.py

Such a model knows one thing of the word to come: its place in the sentence. So it can do no better
than count, place by place, and needs no network: at place t the sentence ends with probability
(ends_t + b h) / (reached_t + b), where h is the share of ends among all tokens, and otherwise the
word w has (count_t(w) + a p(w)) / (words_t + a), where p(w) is its share at any place. The two
constants are chosen on the validation sentences, and that is all the training there is.

It is the rival of the run "inputless" of ptb_remedies.toml, whose decoder reads its code and no
word, and is measured on the same 1,000 test sentences, and on all of them. The result goes to
results/ptb/inputless.json.
"""

import json
from pathlib import Path

import numpy as np

import tutvae
from tutvae.experiments.records import provenance

RECORD = Path(__file__).parents[1] / "results" / "ptb" / "inputless.json"
CONSTANTS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
MEASURED = 1_000  # as ptb_remedies.toml does, evenly spread


class ByPlace:
    """Words and ends of sentences, counted place by place."""

    def __init__(self, sentences: list[list[str]], words: list[str]) -> None:
        longest = max(map(len, sentences)) + 1
        self.ids = {word: i for i, word in enumerate(words)}
        self.counts = np.zeros((longest, len(words)))
        self.ends = np.zeros(longest)
        for sentence in sentences:
            for place, word in enumerate(sentence):
                self.counts[place, self.ids[word]] += 1
            self.ends[len(sentence)] += 1
        self.words = self.counts.sum(1)  # at each place
        self.share = self.counts.sum(0) / self.counts.sum()  # p(w)
        self.end_share = self.ends.sum() / (self.ends.sum() + self.counts.sum())  # h

    def nats(self, sentence: list[str], a: float, b: float) -> float:
        """Minus the log probability of a sentence and its end."""
        place = np.minimum(np.arange(len(sentence) + 1), len(self.words) - 1)
        ends, words = self.ends[place], self.words[place]
        end = (ends + b * self.end_share) / (ends + words + b)
        ids = [self.ids[word] for word in sentence]
        here = place[:-1]
        word = (self.counts[here, ids] + a * self.share[ids]) / (self.words[here] + a)
        return float(-np.log(word).sum() - np.log1p(-end[:-1]).sum() - np.log(end[-1]))

    def mean(self, sentences: list[list[str]], a: float, b: float) -> float:
        """Nats a sentence."""
        return float(np.mean([self.nats(sentence, a, b) for sentence in sentences]))


def spread(sentences: list[list[str]], count: int) -> list[list[str]]:
    """So many of them, evenly spread."""
    return [sentences[i * len(sentences) // count] for i in range(count)]


def main() -> None:
    """Count, choose the constants, measure and record."""
    corpus, begun = tutvae.ptb(), provenance()
    train, valid, test = (
        [text.split() for text in split.texts] for split in (corpus.train, corpus.valid, corpus.test)
    )
    model = ByPlace(train, sorted({word for sentence in train for word in sentence}))
    some = spread(valid, MEASURED)
    a = min(CONSTANTS, key=lambda a: model.mean(some, a, 100))
    b = min(CONSTANTS, key=lambda b: model.mean(some, a, b))
    few = spread(test, MEASURED)
    record = {
        "command": "python experiments/ptb_inputless.py",
        "constants": {"words": a, "ends": b},
        "valid": round(model.mean(valid, a, b), 3),
        "test": {"examples": len(test), "nll": round(model.mean(test, a, b), 3)},
        "test_spread": {"examples": len(few), "nll": round(model.mean(few, a, b), 3)},
        "tokens_spread": sum(len(sentence) + 1 for sentence in few),
        "provenance": begun,
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
