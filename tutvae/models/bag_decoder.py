"""A decoder that sees nothing but its code: a document is a bag of words."""

import torch
from torch import Tensor, nn

from tutvae.data.batches.text import EncodedTexts
from tutvae.models.protocols import Decoder, State


class BagDecoder(Decoder):
    """The likelihood p(x|z) of words drawn independently: it reads none, so the code tells all.

    At every position, p(x_t|z) is the softmax of a linear map of the code's tanh layer, H wide.
    The end mark is a word among the others, so that lengths are geometric. What it writes is no
    sentence; its codes tell what a text is about. No chapter defines it.

    The sizes are those of every decoder, but the `embedding_size` is of no account, since no word
    is read. Z = 0 leaves one distribution for all documents. `dropout` is, in training, the share
    of zeroed entries in the hidden states; outside [0, 1] it is a ValueError.

    Source: Miao et al. (2016), "Neural Variational Inference for Text Processing", section 3.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        latent_size: int = 0,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocabulary_size, latent_size)
        self.bias = nn.Parameter(torch.randn(hidden_size))
        self.code_to_hidden = None
        if latent_size > 0:
            self.code_to_hidden = nn.Linear(latent_size, hidden_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, vocabulary_size)

    @torch.no_grad()
    def start_at_frequencies(self, texts: EncodedTexts) -> None:
        """Set the logits' bias to the log frequencies of words, in place: a good start."""
        batch = texts.batch()
        words = batch.counting(batch.targets)
        counts = torch.bincount(words, minlength=self.vocabulary_size) + 1
        self.output.bias.copy_((counts / counts.sum()).log())

    @property
    def receptive_field(self) -> int:
        """No token at all."""
        return 0

    def forward(self, inputs: Tensor, z: Tensor | None = None) -> Tensor:
        """Read nothing of `[B, T]` inputs; codes `[B, Z]` tell the hidden states `[B, T, H]`."""
        (hidden,) = self.start(z, len(inputs))
        return self.dropout(hidden)[:, None].expand(-1, inputs.shape[1], -1)

    def project(self, hidden: Tensor) -> Tensor:
        """Turn hidden states `[..., H]` into logits of the next token, `[..., V]`."""
        return self.output(hidden)

    def start(self, z: Tensor | None = None, batch_size: int | None = None) -> State:
        """Compute from codes `[B, Z]` the hidden state of every position, `[B, H]`."""
        shape = self.check_code(z, batch_size), -1
        share = 0 if self.code_to_hidden is None else self.code_to_hidden(z)
        return (torch.tanh(self.bias + share).expand(shape),)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the logits of the next token, `[B, V]`, whatever the one before, `[B]`."""
        return self.project(self.dropout(state[0])), state
