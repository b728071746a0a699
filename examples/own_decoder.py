"""A decoder of your own: it sees the last word alone, so the code must hold all the rest.

To run it: `python examples/own_decoder.py`.
"""

import torch
from torch import Tensor, nn

import tutvae
from tutvae.models import Decoder, LSTMEncoder, TextVAE


class LastWordDecoder(Decoder):
    def __init__(self, vocabulary_size: int, latent_size: int, hidden_size: int = 64) -> None:
        super().__init__(vocabulary_size, latent_size)
        self.words = nn.Embedding(vocabulary_size, hidden_size)
        self.code = nn.Linear(latent_size, hidden_size)
        self.output = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, inputs: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(self.words(inputs) + self.code(z)[:, None])

    def project(self, hidden: Tensor) -> Tensor:
        return self.output(hidden)

    def start(self, z: Tensor, batch_size: int | None = None) -> tuple[Tensor, ...]:
        return (self.code(z),)

    def step(self, token: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.project(torch.tanh(self.words(token) + state[0])), state


torch.manual_seed(0)
corpus = tutvae.ReviewGrammar(sentences=(1, 1), nouns=2).corpus(train=4_000, valid=1, test=1)
tokenizer = tutvae.Tokenizer.train(corpus.train.texts)
train = tutvae.Batches.from_texts(corpus.train, tokenizer, batch_size=32)
model = TextVAE(LSTMEncoder(len(tokenizer), 64, 64, 8), LastWordDecoder(len(tokenizer), 8))
tutvae.fit(model, train, epochs=4, optimizer=torch.optim.Adam(model.parameters(), lr=5e-3))
print(*tutvae.sample_texts(model, tokenizer, 5), sep="\n")
