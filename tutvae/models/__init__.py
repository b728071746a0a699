"""The models: encoders, decoders, and the autoencoders made of them."""

from tutvae.models.vae import VAE, BernoulliDecoder, GaussianEncoder

__all__ = ["VAE", "BernoulliDecoder", "GaussianEncoder"]
