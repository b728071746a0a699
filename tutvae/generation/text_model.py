"""A model with its tokenizer: texts in, texts and numbers out."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tutvae.data.batches.text import Batches, EncodedTexts
from tutvae.data.corpus import Texts
from tutvae.data.tokenization import require_documents, require_string
from tutvae.evaluation.classification import BATCH_SIZE
from tutvae.evaluation.report import Report, encode, evaluate, score
from tutvae.evaluation.verdict import Diagnosis, diagnose
from tutvae.generation import texts as generation
from tutvae.generation.decoding import MAX_LENGTH
from tutvae.models import RefinedTextVAE, TextVAE

if TYPE_CHECKING:
    from typing_extensions import Self


def as_documents(texts: Any) -> list[str]:
    """List the documents of what people keep texts in.

    That is a list, an array, a pandas column or a dataset's column of strings; the split of a
    `Corpus`; or a Hugging Face `Dataset` with a column "text". Anything else, such as one string,
    is a TypeError; no documents, or more than one dimension, a ValueError.
    """
    if isinstance(texts, Texts):
        texts = texts.texts
    elif hasattr(texts, "column_names") and not isinstance(texts, Mapping):
        texts = texts["text"]
    elif isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise TypeError(
            f"texts must be a list or a column of strings, not a {type(texts).__name__}: choose "
            "one column, or one split"
        )
    if getattr(texts, "ndim", 1) != 1:
        raise ValueError(
            f"texts must be one column of strings, not an array {list(texts.shape)}: choose one"
        )
    documents = [str(require_string(x, i)) for i, x in enumerate(require_documents(texts))]
    if not documents:
        raise ValueError("there are no texts: give at least one")
    return documents


class TextModel:
    """A trained model of texts and its tokenizer, which are asked with texts.

    `texts` is everywhere what `as_documents` reads. The `model_` is a `TextVAE`, a
    `SemiSupervisedTextVAE` or a `LanguageModel`, for which what needs a code raises ValueError. It
    was trained with `tokenizer_`. Documents are cut to `max_length` tokens, marks included.

    Source: chapters 4 and 5.
    """

    model_: Any
    tokenizer_: Any
    max_length: int | None = None

    def transform(self, texts: Any) -> np.ndarray:
        """Encode N texts: the means of their posteriors, `[N, Z]`."""
        batches = self._batches(texts)
        return encode(generation.require_code(self.model_), batches).loc.numpy()

    def inverse_transform(self, codes: Any) -> list[str]:
        """Decode N codes `[N, Z]` greedily, the most probable token every time.

        Of a model with labels, a code is decoded with the most probable label a priori.
        """
        z = torch.as_tensor(np.asarray(codes), dtype=torch.float32)
        Z = generation.require_code(self._model()).latent_size
        if z.ndim != 2 or z.shape[1] != Z:
            raise ValueError(f"codes must be [N, Z] = [N, {Z}], not {list(z.shape)}")
        if hasattr(self.model_, "code"):
            label = self.model_.label_prior().probs.argmax().expand(len(z))
            z = self.model_.code(z.to(label.device), label)
        return generation.decode_codes(self.model_, self.tokenizer_, z, **self._writing())

    def score_samples(self, texts: Any, importance_samples: int = 50) -> np.ndarray:
        """Estimate log p(x) of N texts, `[N]` nats; with more samples the estimates rise."""
        batches = self._batches(texts)
        return -score(self._model(), batches, importance_samples=importance_samples).nll.numpy()

    def sample(self, count: int = 10, **options: Any) -> list[str]:
        """Write new texts; the options are those of `sample_texts`."""
        model = self._model()
        return generation.sample_texts(model, self.tokenizer_, count, **self._writing(options))

    def reconstruct(self, texts: Any) -> list[str]:
        """Encode N texts and decode their codes greedily."""
        z = generation.codes(self._model(), self._batches(texts))
        return generation.decode_codes(self.model_, self.tokenizer_, z, **self._writing())

    def refined(self, steps: int = 20) -> "Self":
        """Return the same model with posteriors that gradient steps improve: a `RefinedTextVAE`.

        Its codes say their texts better, from about 16 nats on; in batches that takes some
        hundredths of a second a sentence. It shares its weights with the original, and has no
        report. A model without a code, or with labels, is a ValueError.

        >>> refined = tutvae.load("sentences").refined()
        >>> refined.transform(["We need actions, not words."]).shape
        (1, 32)

        Source: Kim et al. (2018). Chapter 11.
        """
        model = generation.require_code(self._model())
        if not isinstance(model, TextVAE):
            raise ValueError(f"only a TextVAE can be refined, not a {type(model).__name__}")
        other = copy.copy(self)
        other.model_ = RefinedTextVAE(model.encoder, model.decoder, steps).train(model.training)
        # What was measured was measured with the encoder's own posteriors.
        for name in ("report", "report_"):
            if hasattr(other, name):
                setattr(other, name, None)
        return other

    def interpolate(self, left: str, right: str, steps: int = 5) -> list[str]:
        """Walk from one text to another in so many steps, both ends included."""
        return generation.interpolate_texts(
            self._model(), self.tokenizer_, left, right, steps, **self._writing()
        )

    def impute(self, texts: Any, blank: str = "_") -> list[str]:
        """Fill every blank of N texts with one token; see `tutvae.impute`."""
        return generation.impute(self._model(), self.tokenizer_, as_documents(texts), blank=blank)

    def evaluate(self, texts: Any, **options: Any) -> Report:
        """Measure the model on texts; the options are those of `tutvae.evaluate`.

        As `language_model`, another `TextModel` of the same tokenizer will do.
        """
        return evaluate(self._model(), self._batches(texts), **self._plain(options))

    def diagnose(self, texts: Any, **options: Any) -> Diagnosis:
        """Examine the model on texts; the options are those of `tutvae.diagnose`."""
        return diagnose(self._model(), list(self._batches(texts)), **self._plain(options))

    def _plain(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options with the model of a `language_model` that is a `TextModel`."""
        other = options.get("language_model")
        if not isinstance(other, TextModel):
            return options
        if other.tokenizer_.fingerprint != self.tokenizer_.fingerprint:
            raise ValueError(
                "the language model has another tokenizer, so its nats do not compare: train it "
                "with tokenizer=vae.tokenizer_"
            )
        return options | {"language_model": other._model()}

    def _model(self) -> Any:
        """The model; estimators raise their own error where there is none yet."""
        return self.model_

    def _writing(self, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Options of writing; texts are at most as long as those that the model reads."""
        return {"max_length": self.max_length or MAX_LENGTH} | (options or {})

    def _batches(self, texts: Any) -> Batches:
        """Batches of texts, to be read once."""
        self._model()
        return Batches(self._encoded(as_documents(texts)), batch_size=BATCH_SIZE, shuffle=False)

    def _encoded(self, texts: Texts | Sequence[str]) -> EncodedTexts:
        """Token ids of documents, cut to the length that the model reads."""
        return EncodedTexts.from_texts(texts, self.tokenizer_, max_length=self.max_length)
