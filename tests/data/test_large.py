from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import chain, islice
from operator import length_hint
from pathlib import Path
from typing import Any

import pytest
import torch

from tutvae.data import large
from tutvae.data.batches.windows import WindowedBatches
from tutvae.data.large import Lines, MappedTexts, StreamedTexts, tokenize_once
from tutvae.data.tokenization import Tokenizer
from tutvae.models import LanguageModel, LSTMDecoder
from tutvae.training.loop import fit

N = 53
WORDS = [f"w{i}" for i in range(17)]
TEXTS = [" ".join(WORDS[(i * k) % 17] for k in range(1, 2 + i % 7)) for i in range(1, N + 1)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "BLOCK", 5)
    monkeypatch.setattr(large, "WRITTEN_AT_ONCE", 8)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(WORDS)


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """Two files, one of them packed, with a blank line and the line ends of Windows."""
    (tmp_path / "a.txt").write_bytes("\r\n".join([*TEXTS[:30], "", ""]).encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS[30:]).encode()))
    return Lines([tmp_path / "a.txt", str(tmp_path / "b.txt.gz")])


@pytest.fixture(params=["mapped", "streamed"])
def source(
    request: pytest.FixtureRequest, lines: Lines, tokenizer: Tokenizer, tmp_path: Path
) -> Any:
    if request.param == "mapped":
        return tokenize_once(lines, tokenizer, tmp_path / "tokens")
    return StreamedTexts(lines, tokenizer)


def rows(batches: Any) -> list[list[int]]:
    """The positions of each batch's documents, whose ids are checked on the way."""
    encoded = Tokenizer.train(WORDS).encode(TEXTS)
    positions = []
    for batch in batches:
        for row, length, position in zip(
            batch.tokens, batch.lengths, batch.positions.tolist(), strict=True
        ):
            assert row[:length].tolist() == encoded[position]
        positions.append(batch.positions.tolist())
    return positions


class TestBatches:
    @pytest.mark.parametrize("sizes", [{"batch_size": 4}, {"token_budget": 30}])
    @pytest.mark.parametrize("shuffle", [True, False])
    def test_each_document_once_an_epoch(
        self, source: Any, sizes: dict[str, int], shuffle: bool
    ) -> None:
        batches = WindowedBatches(source, window=10, shuffle=shuffle, **sizes)
        first, second = rows(batches), rows(batches)
        for epoch in (first, second):
            assert sorted(chain(*epoch)) == list(range(N))
        assert (first == second) is not shuffle
        assert batches.epoch == 2
        again = WindowedBatches(source, window=10, shuffle=shuffle, **sizes)
        assert rows(again) == first

    def test_documents_of_a_batch_are_of_about_one_length(self, source: Any) -> None:
        batches = WindowedBatches(source, window=100, batch_size=9, shuffle=False)
        spread = [int(b.lengths.max() - b.lengths.min()) for b in batches]
        assert max(spread) <= 2

    def test_two_processes_share_each_window(self, source: Any) -> None:
        shares = [
            rows(WindowedBatches(source, window=13, batch_size=3, rank=rank, world_size=2))
            for rank in range(2)
        ]
        assert len(shares[0]) == len(shares[1])
        assert sorted(chain(*shares[0], *shares[1])) == list(range(N))

    def test_a_small_rest_joins_the_window_before(self, source: Any) -> None:
        """53 documents in windows of 25: three would be left over, too few for four processes."""
        shares = [
            rows(WindowedBatches(source, window=25, batch_size=50, rank=rank, world_size=4))
            for rank in range(4)
        ]
        assert [len(share) for share in shares] == [2] * 4
        assert sorted(chain(*chain(*shares))) == list(range(N))

    def test_a_mapped_epoch_mixes_what_lies_far_apart(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        mapped = tokenize_once(lines, tokenizer, tmp_path / "tokens")
        batches = WindowedBatches(mapped, window=10, batch_size=10)
        assert any(max(batch) - min(batch) > 20 for batch in rows(batches))

    def test_how_many_batches_to_expect(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        mapped = tokenize_once(lines, tokenizer, tmp_path / "tokens")
        assert len(mapped) == N
        assert length_hint(WindowedBatches(mapped, batch_size=5, world_size=2)) == 6
        by_tokens = WindowedBatches(mapped, token_budget=30)
        assert length_hint(by_tokens) == pytest.approx(len(rows(by_tokens)), rel=0.3)
        assert length_hint(WindowedBatches(StreamedTexts(lines, tokenizer), batch_size=5)) == 0

    def test_batches_of_streamed_texts_know_their_tokenizer(
        self, lines: Lines, tokenizer: Tokenizer
    ) -> None:
        batches = WindowedBatches(StreamedTexts(lines, tokenizer), batch_size=5)
        assert batches.tokenizer is tokenizer

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, "either batch_size or token_budget"),
            ({"batch_size": 2, "token_budget": 9}, "either batch_size or token_budget"),
            ({"batch_size": 0}, "at least 1"),
            ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank must lie"),
        ],
    )
    def test_settings_that_make_no_sense(
        self, source: Any, settings: dict[str, int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            WindowedBatches(source, **settings)

    def test_a_window_too_small_for_the_processes(self, source: Any) -> None:
        with pytest.raises(ValueError, match="window of 3 is too small for 4"):
            WindowedBatches(source, window=3, batch_size=5, world_size=4)


class TestResume:
    @pytest.mark.parametrize("shuffle", [True, False])
    def test_from_any_batch(self, source: Any, shuffle: bool) -> None:
        def new() -> WindowedBatches:
            return WindowedBatches(source, window=10, batch_size=4, shuffle=shuffle, seed=3)

        whole = new()
        expected = rows(whole) + rows(whole)
        running = new()
        states = [running.state_dict()]
        for _ in range(2):
            for _ in running:
                states.append(json.loads(json.dumps(running.state_dict())))
        for done, state in enumerate(states):
            resumed = new()
            resumed.load_state_dict(state)
            rest = rows(resumed)
            while resumed.epoch < 2:
                rest += rows(resumed)
            assert rest == expected[done:]

    def test_batch_by_batch(self, source: Any) -> None:
        """Every batch is drawn by an object of its own."""
        expected = rows(WindowedBatches(source, window=10, batch_size=4))
        state = WindowedBatches(source, window=10, batch_size=4).state_dict()
        drawn = []
        while state["epoch"] == 0:
            batches = WindowedBatches(source, window=10, batch_size=4)
            batches.load_state_dict(state)
            drawn += rows(islice(batches, 1))
            if (new := batches.state_dict()) == state:
                assert rows(batches) == []  # the epoch was at its end
                new = batches.state_dict()
            state = new
        assert drawn == expected

    @pytest.mark.parametrize("change", [{"seed": 1}, {"window": 11}, {"batch_size": 5}])
    def test_a_state_of_other_settings_is_refused(
        self, source: Any, change: dict[str, int]
    ) -> None:
        state = WindowedBatches(source, **{"window": 10, "batch_size": 4}).state_dict()
        other = WindowedBatches(source, **{"window": 10, "batch_size": 4, **change})
        with pytest.raises(ValueError, match=f"have {next(iter(change))} .* resume with the same"):
            other.load_state_dict(state)

    def test_in_training(self, source: Any, tmp_path: Path) -> None:
        def train(folder: Path | None, killed_at: int | None = None) -> torch.Tensor:
            def weight(step: int) -> float:
                if step == killed_at:
                    raise KeyboardInterrupt
                return 1.0

            torch.manual_seed(0)
            model = LanguageModel(LSTMDecoder(30, 3, 4))
            fit(
                model,
                WindowedBatches(source, window=10, token_budget=30),
                epochs=2,
                kl_weight=weight,
                device="cpu",
                run_folder=folder,
                checkpoint_minutes=0,
            )
            return torch.cat([p.detach().flatten() for p in model.parameters()])

        for step in (3, 17):
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path / "run", killed_at=step)
        assert torch.equal(train(tmp_path / "run"), train(None))


class TestTokenizeOnce:
    def test_the_second_time_nothing_is_read(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = tokenize_once(lines, tokenizer, tmp_path / "tokens")
        monkeypatch.setattr(Lines, "__iter__", None)
        again = tokenize_once(lines, tokenizer, tmp_path / "tokens")
        assert again.about == first.about
        assert first.tokens == sum(map(len, tokenizer.encode(TEXTS)))

    def test_another_tokenizer_or_file(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        tokenize_once(lines, tokenizer, tmp_path / "tokens")
        other = Tokenizer.train(WORDS[:5])
        with pytest.raises(ValueError, match="tokenised from other tokenizer: choose"):
            tokenize_once(lines, other, tmp_path / "tokens")
        with pytest.raises(ValueError, match="from other max_length, texts"):
            tokenize_once(Lines(lines.files[:1]), tokenizer, tmp_path / "tokens", max_length=9)

    def test_other_texts_are_never_taken_for_these(
        self, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        """Neither of lists, which are compared by their content, nor of marks."""
        first = tokenize_once(["w1 w2", "w3"], tokenizer, tmp_path / "tokens")
        again = tokenize_once(iter(["w1 w2", "w3"]), tokenizer, tmp_path / "tokens")
        assert again.about == first.about
        for other in (["w4", "w5"], ["w1", "w2w3"], ["w1 w2"], ["w1 w2", "w3", ""]):
            with pytest.raises(ValueError, match="tokenised from other texts: choose"):
                tokenize_once(other, tokenizer, tmp_path / "tokens")
        swapped = Tokenizer.from_tokenizers(tokenizer.backend, bos="<eos>", eos="<bos>")
        with pytest.raises(ValueError, match="tokenised from other tokenizer: choose"):
            tokenize_once(["w1 w2", "w3"], swapped, tmp_path / "tokens")

    @pytest.mark.parametrize("position", [0, 5, 8, 13])
    def test_a_document_that_is_none_is_no_end(
        self, tokenizer: Tokenizer, tmp_path: Path, position: int
    ) -> None:
        texts: list[Any] = [*TEXTS[:position], None, *TEXTS[position:]]
        with pytest.raises(TypeError, match=f"document {position} is a NoneType"):
            tokenize_once(texts, tokenizer, tmp_path / "tokens")
        assert not (tmp_path / "tokens" / "about.json").exists()

    def test_one_string_is_not_a_corpus(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"write \[text\]"):
            tokenize_once("w1", tokenizer, tmp_path / "tokens")
        with pytest.raises(TypeError, match=r"write \[text\]"):
            StreamedTexts("w1", tokenizer)

    @pytest.mark.parametrize("content", ["", "[]", "null", '{"documents": "many"}', "[" * 10_000])
    def test_a_broken_description(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path, content: str
    ) -> None:
        folder = tokenize_once(lines, tokenizer, tmp_path / "tokens").folder
        (folder / "about.json").write_text(content)
        with pytest.raises(ValueError, match=r"about\.json is not from tokenize_once.*anew"):
            MappedTexts(folder)

    @pytest.mark.parametrize("name", ["tokens.bin", "ends.bin"])
    def test_files_that_are_cut_or_missing(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path, name: str
    ) -> None:
        folder = tokenize_once(lines, tokenizer, tmp_path / "tokens").folder
        (folder / name).write_bytes((folder / name).read_bytes()[:-4])
        with pytest.raises(ValueError, match="tokenise anew"):
            MappedTexts(folder)
        (folder / name).unlink()
        with pytest.raises(ValueError, match="tokenise anew"):
            tokenize_once(lines, tokenizer, folder)

    def test_one_that_broke_off_is_done_again(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        class Breaking:
            def __iter__(self) -> Iterator[str]:
                yield from TEXTS[:20]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tokenize_once(Breaking(), tokenizer, tmp_path / "tokens")
        with pytest.raises(FileNotFoundError, match="holds no tokenised corpus"):
            MappedTexts(tmp_path / "tokens")
        assert len(tokenize_once(lines, tokenizer, tmp_path / "tokens")) == N

    def test_long_documents_are_cut(
        self, lines: Lines, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        with pytest.warns(UserWarning, match=r"22 of 53 documents have more than 6 tokens"):
            mapped = tokenize_once(lines, tokenizer, tmp_path / "tokens", max_length=6)
        streamed = StreamedTexts(lines, tokenizer, max_length=6)
        for source in (mapped, streamed):
            batches = WindowedBatches(source, batch_size=10, shuffle=False)
            assert max(int(batch.lengths.max()) for batch in batches) == 6

    def test_a_corpus_without_documents(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no documents"):
            tokenize_once([], tokenizer, tmp_path / "tokens")


class TestSources:
    def test_lines_are_the_documents(self, lines: Lines) -> None:
        assert list(lines) == list(lines) == TEXTS

    def test_lines_have_no_byte_order_mark(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_bytes("\ufeffone\x85still\rtwo\n".encode())
        assert list(Lines([tmp_path / "x.txt"])) == ["one\x85still", "two"]

    def test_lines_of_a_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_bytes(b"one\n\xff\n")
        with pytest.raises(ValueError, match=r"x\.txt, line 2, byte 1 is not UTF-8"):
            list(Lines([tmp_path / "x.txt"]))
        (tmp_path / "x.gz").write_bytes(gzip.compress(b"one\n")[:-3])
        with pytest.raises(ValueError, match=r"x\.gz is not a whole gzip file"):
            list(Lines([tmp_path / "x.gz"]))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no file"):
            Lines([tmp_path / "none.txt"])

    def test_a_stream_that_can_be_read_only_once(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(TypeError, match="only once"):
            StreamedTexts(iter(TEXTS), tokenizer)

    def test_a_streaming_dataset_of_the_hub(self, lines: Lines, tokenizer: Tokenizer) -> None:
        datasets = pytest.importorskip("datasets")
        stream = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
        batches = WindowedBatches(StreamedTexts(stream["text"], tokenizer), batch_size=10)
        assert sorted(chain(*rows(batches))) == list(range(N))
        assert sorted(chain(*rows(batches))) == list(range(N))
