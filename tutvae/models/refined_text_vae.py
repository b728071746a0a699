"""A trained VAE of text that improves its encoder's answer for each document."""

import torch
from torch.distributions import Normal, kl_divergence

from tutvae.data.batches.text_batch import TextBatch
from tutvae.models.protocols import Decoder, Encoder
from tutvae.models.text_vae import TextVAE

# Of Adam at the first step, from where it falls to 0.
LEARNING_RATE = 0.05


class RefinedTextVAE(TextVAE):
    """A trained `TextVAE` that improves each document's posterior by some gradient steps.

    The steps start at the encoder's mean and scale and lower the negative bound, in which a KL
    below the encoder's counts as the encoder's: the code may say as much as before, and says it
    better. A step costs about what one of training costs. In eval mode, a document's posterior
    depends on no other document and on no random state. It has no gradient, so the encoder is not
    trained by it.

    Args:
        encoder: of a trained `TextVAE`.
        decoder: its decoder.
        steps: how many; below 1 is a ValueError.

    >>> trained = tutvae.load("sentences")
    >>> model = tutvae.models.RefinedTextVAE(trained.model_.encoder, trained.model_.decoder)
    >>> texts = tutvae.EncodedTexts.from_texts(["We need actions, not words."], trained.tokenizer_)
    >>> model.posterior(texts.batch()).loc.shape
    torch.Size([1, 32])

    No chapter defines it; chapter 11 measures what it brings.

    Source: Hjelm et al. (2016) for the idea, Kim et al. (2018) for text.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, steps: int = 20) -> None:
        super().__init__(encoder, decoder)
        if steps < 1:
            raise ValueError(f"a posterior is refined by at least 1 step, not {steps}")
        self.steps = steps

    def posterior(self, batch: TextBatch) -> Normal:
        """Encode B documents and refine what comes out: a Normal of shape `[B, Z]`.

        RuntimeError under `torch.inference_mode`, in which nothing has a gradient.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("to refine a posterior takes gradients: use torch.no_grad instead")
        with torch.no_grad():
            first = super().posterior(batch)
        # Half precision is too coarse for small steps.
        single = torch.promote_types(first.loc.dtype, torch.float32)
        loc = first.loc.to(single, copy=True).requires_grad_()
        log_scale = first.scale.to(single).log().requires_grad_()
        rate = kl_divergence(first, self.prior()).sum(-1)  # [B]
        optimizer = torch.optim.Adam([loc, log_scale])
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.steps, 1, self.latent_size, generator=generator).to(loc)
        # In eval mode cuDNN's LSTMs have no gradients.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            for step, drawn in enumerate(noise):
                q = Normal(loc, log_scale.exp(), validate_args=False)
                z = torch.stack([q.loc + q.scale * drawn, q.loc - q.scale * drawn])
                costs = -self.log_likelihood(batch, z.to(first.loc.dtype)).mean(0)
                kl = kl_divergence(q, self.prior()).sum(-1)
                loss = (costs + torch.maximum(kl, rate)).sum()
                loc.grad, log_scale.grad = torch.autograd.grad(loss, [loc, log_scale])
                optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / self.steps)
                optimizer.step()
        scale = log_scale.detach().exp()
        return Normal(loc.detach().to(first.loc), scale.to(first.loc), validate_args=False)
