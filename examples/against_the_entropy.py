"""A language model and a VAE on generated reviews, whose entropy no model can beat.

To run it: `python examples/against_the_entropy.py`.
"""

import torch

import tutvae
from tutvae.models import LanguageModel, LSTMDecoder

grammar = tutvae.ReviewGrammar(sentences=(1, 2), openings=2, nouns=2)
corpus = grammar.corpus(train=4_000, valid=500, test=500)
tokenizer = tutvae.Tokenizer.train(corpus.train.texts)
test = tutvae.Batches.from_texts(corpus.test, tokenizer, batch_size=100, shuffle=False)

torch.manual_seed(0)
models = {
    "language model": LanguageModel(LSTMDecoder(len(tokenizer), 64, 64)),
    "VAE": tutvae.TextVAE.lstm(tokenizer, embedding_size=64, hidden_size=64, pooling="max"),
}
for name, model in models.items():
    train = tutvae.Batches.from_texts(corpus.train, tokenizer, batch_size=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    tutvae.fit(model, train, epochs=3, optimizer=optimizer, free_bits=0.1)
    report = tutvae.evaluate(model, test, importance_samples=20)
    print(f"{name}: {report.importance_weighted_nll:.1f} nats a review, KL {report.kl:.1f}")

print(f"the entropy: {grammar.entropy().value:.1f} nats a review")
