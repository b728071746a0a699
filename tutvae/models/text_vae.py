"""The models of text: a language model, p(x), and the sentence VAE, p(x|z) p(z)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from tutvae.bounds import Elbo
from tutvae.data.batches.text_batch import TextBatch
from tutvae.data.tokenization import Tokenizer
from tutvae.models.encoders import LSTMEncoder
from tutvae.models.lstm_decoder import LSTMDecoder
from tutvae.models.protocols import Decoder, Encoder

# Of all tensors the logits are by far the largest; so many stay in a processor's cache. A GPU has
# none of that size, and wants large products.
LOGITS_AT_ONCE, ON_A_GPU = 2**22, 2**26


def document_log_likelihood(decoder: Decoder, batch: TextBatch, z: Tensor | None = None) -> Tensor:
    """Score documents: the sum of the log-probabilities of words and end marks, `[B]` nats.

    Each target is predicted from the true tokens before it, from the start mark on (teacher
    forcing). The score is log p(x|z) at codes `[B, Z]`, or log p(x) where Z = 0 and z is None.

    Source: Mikolov et al. (2010) for Z = 0, Bowman et al. (2016). Chapters 3 and 4.
    """
    if decoder.receptive_field == 0:  # one distribution a document, whatever its length
        log_p = decoder.project(decoder(batch.inputs[:, :1], z)[:, 0]).log_softmax(-1)  # [B, V]
        return log_p.gather(1, batch.targets).masked_fill(~batch.mask, 0.0).sum(1)
    hidden = batch.counting(decoder(batch.inputs, z))  # [words and end marks, H]
    return -batch.by_document(target_costs(decoder, hidden, batch.counting(batch.targets)))


def target_costs(decoder: Decoder, hidden: Tensor, targets: Tensor) -> Tensor:
    """Compute -log p(target) of targets `[N]` at hidden states `[N, H]`: `[N]` nats.

    The decoder projects a part of the states to logits at a time.

    Source: chapter 3, equation `chain-rule`, whose terms these are.
    """
    at_once = ON_A_GPU if hidden.is_cuda else LOGITS_AT_ONCE
    rows = max(1, at_once // decoder.vocabulary_size)
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    costs = [F.cross_entropy(decoder.project(h), y, reduction="none") for h, y in parts]
    return torch.cat(costs)


def check_tokens(batch: TextBatch, vocabulary_size: int) -> None:
    """Raise ValueError for tokens or lengths that no model of this vocabulary can read."""
    lowest, largest, shortest, longest = batch.extremes
    if lowest < 0 or largest >= vocabulary_size:
        raise ValueError(
            f"token id {lowest if lowest < 0 else largest} is outside the model's vocabulary of "
            f"{vocabulary_size}: encode the texts with the tokenizer that the model was built for"
        )
    if shortest < 2 or longest > batch.tokens.shape[1]:
        raise ValueError(
            f"lengths lie between 2, start and end mark, and T = {batch.tokens.shape[1]}, "
            f"not between {shortest} and {longest}"
        )


def check_tokenizer(tokenizer: Tokenizer, vocabulary_size: int) -> None:
    """Raise ValueError for a tokenizer that a model was not built for."""
    if len(tokenizer) != vocabulary_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the model {vocabulary_size}: "
            "use the tokenizer that the model was trained with"
        )


def standard_normal(model: nn.Module, *shape: int) -> Normal:
    """A standard Normal on the device and in the precision of a model."""
    zeros = next(model.parameters()).new_zeros(shape)
    return Normal(zeros, torch.ones_like(zeros), validate_args=False)


class LanguageModel(nn.Module):
    """A decoder without a code: p(x) as a product over the words, each given those before it.

    To `fit` and `evaluate` it is a latent-variable model with Z = 0: its KL is 0, and its bound
    is the exact NLL. The decoder is any one with `latent_size` 0; another is a ValueError.

    >>> model = tutvae.LanguageModel(tutvae.LSTMDecoder(100, 8, 16))
    >>> model.log_likelihood(tutvae.EncodedTexts([[1, 7, 8, 2], [1, 7, 2]]).batch()).shape
    torch.Size([2])

    No chapter defines it: chapter 3 writes a shorter one.

    Source: Mikolov et al. (2010). Chapter 3, equation `chain-rule`.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        if decoder.latent_size != 0:
            raise ValueError(
                f"a language model has no code, but its decoder has latent_size "
                f"{decoder.latent_size}: build it with 0, or use TextVAE"
            )
        self.decoder = decoder
        self.latent_size = 0

    def prior(self) -> Normal:
        """The prior over no dimensions at all: a Normal of shape `[0]`."""
        return standard_normal(self, 0)

    def posterior(self, batch: TextBatch) -> Normal:
        """The posterior over no dimensions of B documents: a Normal of shape `[B, 0]`."""
        return standard_normal(self, len(batch), 0)

    def log_likelihood(self, batch: TextBatch, z: Tensor | None = None) -> Tensor:
        """Score B documents: log p(x), `[B]` nats per document; `[..., B]` for z `[..., B, 0]`."""
        check_tokens(batch, self.decoder.vocabulary_size)
        scores = document_log_likelihood(self.decoder, batch)
        return scores if z is None else scores.expand(z.shape[:-1])

    def forward(self, batch: TextBatch) -> Elbo:
        """Return the NLL of B documents as the reconstruction of a bound whose KL is 0."""
        nll = -self.log_likelihood(batch)
        return Elbo(nll, torch.zeros_like(nll), nll.new_zeros(len(nll), 0))


class TextVAE(nn.Module):
    """A latent-variable model of text, p(x|z) p(z), with the encoder q(z|x) that trains it.

    Encoder and decoder are any with the same `vocabulary_size` and `latent_size`, which is not 0;
    others are a ValueError. So are, in the methods, a token outside the vocabulary and codes of
    another shape.

    >>> tokenizer = tutvae.Tokenizer.train(["so good", "so bad"])
    >>> model = tutvae.TextVAE.lstm(tokenizer, latent_size=2)
    >>> model(tutvae.EncodedTexts(tokenizer.encode(["so bad"])).batch()).kl.shape
    torch.Size([1])

    Source: Bowman et al. (2016). Chapter 4, equation `text-elbo`.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        if decoder.latent_size == 0:
            raise ValueError("a TextVAE needs a code: latent_size 0 makes a LanguageModel")
        for size in ("latent_size", "vocabulary_size"):
            if getattr(encoder, size) != getattr(decoder, size):
                raise ValueError(
                    f"encoder and decoder must agree: {size} is {getattr(encoder, size)} "
                    f"in the one and {getattr(decoder, size)} in the other"
                )
        self.encoder = encoder
        self.decoder = decoder
        self.latent_size = decoder.latent_size

    @classmethod
    def lstm(
        cls,
        tokenizer: Tokenizer,
        *,
        embedding_size: int = 128,
        hidden_size: int = 128,
        latent_size: int = 16,
        word_dropout: float = 0.0,
        pooling: Literal["last", "max"] = "last",
    ) -> "TextVAE":
        """Build the VAE of Bowman et al. for a tokenizer's vocabulary: two LSTMs and a code.

        The sizes E, H and Z are those of both LSTMs, and the options theirs.
        """
        sizes = (len(tokenizer), embedding_size, hidden_size, latent_size)
        decoder = LSTMDecoder(
            *sizes, word_dropout=word_dropout, unk_id=tokenizer.unk_id, bos_id=tokenizer.bos_id
        )
        return cls(LSTMEncoder(*sizes, pooling=pooling), decoder)

    def prior(self) -> Normal:
        """The prior p(z): a standard Normal of shape `[Z]`."""
        return standard_normal(self, self.latent_size)

    def posterior(self, batch: TextBatch) -> Normal:
        """Encode B documents to q(z|x), a Normal of shape `[B, Z]`."""
        check_tokens(batch, self.decoder.vocabulary_size)
        return self.encoder(batch)

    def log_likelihood(self, batch: TextBatch, z: Tensor) -> Tensor:
        """Score B documents at codes `[..., B, Z]`: log p(x|z), `[..., B]` nats per document."""
        check_tokens(batch, self.decoder.vocabulary_size)
        if z.shape[-2:] != (len(batch), self.latent_size):
            raise ValueError(
                f"codes must be [..., B, Z] = [..., {len(batch)}, {self.latent_size}], "
                f"not {list(z.shape)}"
            )
        samples = z.shape[:-2].numel()
        repeated = TextBatch(batch.tokens.repeat(samples, 1), batch.lengths.repeat(samples))
        scores = document_log_likelihood(self.decoder, repeated, z.flatten(0, -2))
        return scores.view(z.shape[:-1])

    def forward(self, batch: TextBatch) -> Elbo:
        """Bound log p(x) for B documents, at one sample of the posterior a document."""
        q = self.posterior(batch)
        z = q.rsample()  # [B, Z]
        kl = kl_divergence(q, self.prior())  # [B, Z]
        return Elbo(-document_log_likelihood(self.decoder, batch, z), kl.sum(-1), kl)


def initialise_encoder(model: nn.Module, language_model: LanguageModel) -> None:
    """Start an encoder from a trained LSTM language model: the "+init" of Yang et al.

    Copies the word vectors and the weights of an `LSTMDecoder` to a model's `LSTMEncoder`, in
    place; the layers from its states to q(z|x) stay as they are. The two share nothing afterwards.
    Where either is another, or they differ in a size or in V, it is a ValueError.

    >>> model = tutvae.TextVAE(tutvae.LSTMEncoder(100, 8, 16, 2), tutvae.LSTMDecoder(100, 8, 16, 2))
    >>> trained = tutvae.LanguageModel(tutvae.LSTMDecoder(100, 8, 16))
    >>> tutvae.initialise_encoder(model, trained)
    >>> torch.equal(model.encoder.embedding.weight, trained.decoder.embedding.weight)
    True

    Source: Yang et al. (2017). Chapter 7.
    """
    encoder, decoder = model.encoder, language_model.decoder
    if not (isinstance(encoder, LSTMEncoder) and isinstance(decoder, LSTMDecoder)):
        raise ValueError(
            "an LSTMEncoder can start from a language model with an LSTMDecoder, "
            f"not {type(encoder).__name__} from {type(decoder).__name__}"
        )
    names = ("vocabulary_size", "embedding_size", "hidden_size")
    ours, theirs = (
        dict(zip(names, (*part.embedding.weight.shape, part.lstm.hidden_size), strict=True))
        for part in (encoder, decoder)
    )
    if ours != theirs:
        raise ValueError(
            f"encoder and language model must have the same sizes: {ours} and {theirs}"
        )
    encoder.embedding.load_state_dict(decoder.embedding.state_dict())
    encoder.lstm.load_state_dict(decoder.lstm.state_dict())
