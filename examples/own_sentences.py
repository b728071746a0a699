"""Train a sentence VAE on a text file of your own, then walk from one sentence to another.

To run it: `python examples/own_sentences.py my.txt`.
"""

import sys

import torch

import tutvae

torch.manual_seed(0)
corpus = tutvae.from_files(sys.argv[1])
tokenizer = tutvae.Tokenizer.train(corpus.train.texts)
train = tutvae.Batches.from_texts(corpus.train, tokenizer, batch_size=32)
valid = tutvae.Batches.from_texts(corpus.valid, tokenizer, batch_size=32, shuffle=False)

model = tutvae.TextVAE.lstm(tokenizer, hidden_size=64, pooling="max")
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
tutvae.fit(model, train, epochs=6, valid=valid, optimizer=optimizer, free_bits=0.25)
print(tutvae.evaluate(model, valid, importance_samples=20))

first, last = corpus.test.texts[:2]
print(*tutvae.interpolate_texts(model, tokenizer, first, last), sep="\n")
