"""A user's own file, as untidy as files are, from the disk to a trained model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tutvae

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """1,000 lines: CRLF, a mark of byte order, blanks, emoji, bad UTF-8 and a very long line."""
    lines = [
        f"the {noun} was {mood} .".encode() for noun in ("tea", "cake") for mood in ("ok", "bad")
    ]
    content = (lines * 250)[:996]
    content += [b"", b"   ", "lovely 🍰 !".encode(), b"\xe9 was shut"]
    content[500] = b"word " * 5_000
    path = tmp_path / "mine.txt"
    path.write_bytes(BOM + b"\r\n".join(content))
    return path


def test_an_untidy_file_trains_and_says_what_it_left_out(untidy: Path) -> None:
    told = "blank documents skipped: 2; documents with bytes that are not UTF-8, now �: 1"
    with pytest.warns(UserWarning, match=told):
        corpus = tutvae.from_files(untidy)
    texts = [text for part in (corpus.train, corpus.valid, corpus.test) for text in part.texts]
    assert len(texts) == 998
    assert "lovely 🍰 !" in texts
    assert not any(text.startswith("\ufeff") or "\r" in text for text in texts)

    everything = sorted(texts, key=len)
    tokenizer = tutvae.Tokenizer.train(everything)
    with pytest.warns(UserWarning, match="1 of 998 documents have more than 60 tokens"):
        batches = tutvae.Batches.from_texts(everything, tokenizer, batch_size=64, max_length=60)
    torch.manual_seed(0)
    model = tutvae.TextVAE.lstm(tokenizer, embedding_size=8, hidden_size=12, latent_size=2)
    history = tutvae.fit(model, batches, epochs=2, device="cpu")
    assert history["train_reconstruction"][1] < history["train_reconstruction"][0]
    walk = tutvae.interpolate_texts(model, tokenizer, "the tea was ok .", "the cake was bad .")
    assert len(walk) == 5
