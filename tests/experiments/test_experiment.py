from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutvae.experiments import TextExperiment, load_experiment, validate_experiment
from tutvae.experiments.experiment import merged

REPOSITORY = Path(__file__).parents[2]

PTB = """
name = "ptb"
kind = "text"
corpus.name = "ptb"
corpus.max_length = 80
decoder = {kind = "dilated_cnn", embedding_size = 4, channels = 6, dilations = [1, 3]}
model.latent_size = 0
training = {epochs = 2, token_budget = 900, learning_rate = 1, optimizer = "sgd"}
evaluation = {importance_samples = 1, max_examples = 10}
"""

ALL = ["vae-1", "vae-4", "language_model-1", "language_model-4", "cnn-1", "cnn-4"]
LEAVES = st.one_of(st.integers(), st.lists(st.integers(), max_size=2))
TABLES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), LEAVES | inner, max_size=3),
    max_leaves=8,
)


def described(path: Path, *settings: str) -> TextExperiment:
    experiment = load_experiment(path, settings)
    assert isinstance(experiment, TextExperiment)
    return experiment


def leaves(table: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value that is no table, by its keys."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        inner = isinstance(value, dict)
        found |= leaves(value, (*path, key)) if inner else {(*path, key): value}
    return found


def changed(path: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of an experiment file in which `old` reads `new`."""
    text = path.read_text()
    assert text.count(old) == 1
    copy = tmp_path / "changed.toml"
    copy.write_text(text.replace(old, new))
    return copy


class TestLoading:
    def test_what_the_file_says(self, digits_toml: Path) -> None:
        experiment = load_experiment(digits_toml)
        assert (experiment.name, experiment.seed) == ("tiny_digits", 3)
        assert experiment.corpus.name == "digits"
        assert experiment.model.latent_size == 4
        assert experiment.model.hidden_sizes == (32,)
        assert experiment.training.epochs == 20
        assert experiment.training.learning_rate == 0.005
        assert experiment.evaluation.importance_samples == 7

    @pytest.mark.parametrize(
        "path", sorted((REPOSITORY / "experiments").glob("*.toml")), ids=lambda path: path.stem
    )
    def test_the_files_of_the_project(self, path: Path) -> None:
        assert load_experiment(path).name == path.stem

    @pytest.mark.parametrize(
        ("old", "new", "messages"),
        [
            (
                "epochs = 20",
                "epoch = 20",
                ["training.epochs: Field required", "training.epoch: Ext"],
            ),
            ("seed = 3", "", ["seed: Field required"]),
            ("seed = 3", "seed = -1", ["seed: ", "greater than or equal to 0"]),
            (
                'name = "digits"',
                'name = "digit"',
                ["corpus: name should", "'digits'", "not 'digit'"],
            ),
            ("latent_size = 4", "latent_size = 0", ["model.latent_size: ", "greater than 0"]),
            ("latent_size = 4", 'latent_size = "4"', ["model.latent_size: ", "valid integer"]),
            ("latent_size = 4", "latent_size = true", ["model.latent_size: ", "valid integer"]),
            ("[32]", "[32, 1.5]", ["model.hidden_sizes.1: ", "valid integer"]),
            ("[32]", "32", ["model.hidden_sizes: ", "valid tuple"]),
            ("0.005", "nan", ["training.learning_rate: ", "finite number"]),
            ('"tiny_digits"', '"../tiny"', ["name: ", "match pattern"]),
            ("[evaluation]", "[evaluations]", ["evaluation: Field required", "evaluations: Extra"]),
        ],
    )
    def test_the_message_names_the_key_and_what_is_allowed(
        self, digits_toml: Path, tmp_path: Path, old: str, new: str, messages: list[str]
    ) -> None:
        path = changed(digits_toml, tmp_path, old, new)
        with pytest.raises(ValueError, match="does not describe an experiment") as caught:
            load_experiment(path)
        assert str(path) in str(caught.value)
        for message in messages:
            assert message in str(caught.value)

    def test_every_fault_is_named_at_once(self, digits_toml: Path) -> None:
        with pytest.raises(ValueError, match="seed") as caught:
            load_experiment(digits_toml, ["seed=-1", "training.epochs=0", "model.depth=2"])
        for key in ("seed", "training.epochs", "model.depth"):
            assert f"\n{key}: " in str(caught.value)

    @pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"a = 1\na = 2"])
    def test_a_file_that_is_not_toml(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.toml"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.toml is not valid TOML: "):
            load_experiment(path)

    @pytest.mark.parametrize(
        "content", ["a = " + "[" * 5000, "[" + ".".join("a" * 5000) + "]", "variants" + ".a" * 5000]
    )
    def test_deep_nesting(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "x.toml"
        end = "" if content.startswith("[") else " = 1" if "variants" in content else "]" * 5000
        path.write_text(PTB + content + end)
        with pytest.raises(ValueError, match=r"x\.toml "):
            load_experiment(path)

    def test_deep_nesting_in_a_setting(self, digits_toml: Path) -> None:
        with pytest.raises(ValueError, match="nested too deeply"):
            load_experiment(digits_toml, ["seed=" + "[" * 5000 + "]" * 5000])

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.toml"):
            load_experiment(tmp_path / "nowhere.toml")


class TestSettings:
    def test_they_change_values_of_every_type(self, digits_toml: Path) -> None:
        settings = [
            "name=other",
            "seed = 8",
            "corpus.name='mnist'",
            "model.hidden_sizes=[5]",
            "training.learning_rate=1e-4",
        ]
        experiment = load_experiment(digits_toml, settings)
        assert experiment.name == "other"
        assert experiment.seed == 8
        assert experiment.corpus.name == "mnist"
        assert experiment.model.hidden_sizes == (5,)
        assert experiment.training.learning_rate == 1e-4
        assert experiment.training.epochs == 20  # as the file says

    def test_the_last_one_counts(self, digits_toml: Path) -> None:
        assert load_experiment(digits_toml, ["seed=1", "seed=2"]).seed == 2

    @pytest.mark.parametrize("setting", ["seed", "training.epochs:3", ""])
    def test_without_an_equals_sign(self, digits_toml: Path, setting: str) -> None:
        with pytest.raises(ValueError, match=rf"section\.key=value, not '{setting}'"):
            load_experiment(digits_toml, [setting])

    def test_a_value_is_no_section(self, digits_toml: Path) -> None:
        with pytest.raises(ValueError, match="'seed', which is not a section"):
            load_experiment(digits_toml, ["seed.x=1"])

    @pytest.mark.parametrize("setting", ["optimiser.name=adam", "=3", "training.epochs=many"])
    def test_what_the_file_may_not_say_they_may_not_either(
        self, digits_toml: Path, setting: str
    ) -> None:
        with pytest.raises(ValueError, match="does not describe an experiment"):
            load_experiment(digits_toml, [setting])


class TestKinds:
    def test_an_image_is_meant_where_nothing_is_said(self, digits_toml: Path) -> None:
        plain = load_experiment(digits_toml)
        assert load_experiment(digits_toml, ["kind=image"]) == plain
        assert plain.configuration()["kind"] == "image"

    @pytest.mark.parametrize("kind", ["sound", "[1]", "2"])
    def test_an_unknown_one(self, digits_toml: Path, kind: str) -> None:
        with pytest.raises(ValueError, match=r"\nkind: Input should be 'image' or 'text'.*, not "):
            load_experiment(digits_toml, [f"kind={kind}"])

    def test_each_has_keys_of_its_own(self, digits_toml: Path) -> None:
        with pytest.raises(ValueError, match=r"\ndecoder: Field required"):
            load_experiment(digits_toml, ["kind=text"])


class TestTexts:
    @pytest.mark.parametrize(
        ("settings", "faults"),
        [
            (["corpus.name=brown"], ["corpus: name should be 'reviews' or ", "not 'brown'"]),
            (["corpus.documents=[1,2]"], ["corpus.documents.2: Field required"]),
            (["corpus.nouns=41"], ["corpus: nouns must be 1 to 40, not 41"]),
            (["corpus.train_size=3"], ["corpus.train_size: Extra inputs"]),
            (["corpus.vocabulary_size=4"], ["corpus.vocabulary_size: ", "equal to 5"]),
            (["corpus={name='ptb', train_on='valid'}"], ["corpus: train_on goes with yahoo alone"]),
            (["corpus={name='ptb'}"], ["evaluation.factors goes with the corpus 'reviews' alone"]),
            (["encoder.pooling=mean"], ["encoder.pooling: Input should be 'last' or 'max'"]),
            (["encoder.hidden_size=0"], ["encoder.hidden_size: ", "greater than 0"]),
            (["decoder.kind=rnn"], ["decoder: kind should be 'lstm' or ", "not 'rnn'"]),
            (["decoder.channels=3"], ["decoder.channels: Extra inputs"]),
            (["decoder.dropout=1.5"], ["decoder: dropout probability has to be between 0 and 1"]),
            (["training.learning_rate=inf"], ["training.learning_rate: ", "finite number"]),
            (["training.max_grad_norm=inf"], ["training.max_grad_norm: ", "finite number"]),
            (["training.free_bits=nan"], ["training.free_bits: ", "finite number"]),
            (["training.kl_weight=inf"], ["training.kl_weight: ", "finite number"]),
            (["corpus.vagueness=nan"], ["corpus.vagueness: ", "finite number"]),
            (["decoder.dropout=nan"], ["decoder.dropout: ", "finite number"]),
            (["training.learning_rate=1e300"], ["training.learning_rate: ", "less than or equal"]),
            (["training.free_bits=1e300"], ["training.free_bits: ", "less than or equal"]),
            (["seed=18446744073709551616"], ["seed: ", "less than"]),
            (["model.latent_size=4294967296"], ["model.latent_size: ", "less than"]),
            (["training.epochs=1180591620717411303424"], ["training.epochs: ", "less than"]),
            (["corpus.vocabulary_size=1180591620717411303424"], ["vocabulary_size: ", "less than"]),
            (["decoder.hidden_size=1180591620717411303424"], ["hidden_size: ", "less than"]),
            (["decoder.hidden_size=2000000000"], ["decoder: no such decoder can be built: "]),
            (["model.latent_size=-1"], ["model.latent_size: ", "greater than or equal to 0"]),
            (["training.token_budget=9"], ["training: give either batch_size or token_budget"]),
            (["training.optimizer=rmsprop"], ["training.optimizer: ", "'adam' or 'sgd'"]),
            (["training.learning_rate_schedule=x"], ["'linear', 'cosine' or 'plateau'"]),
            (["training.accumulation_steps=0"], ["training.accumulation_steps: ", "than 0"]),
            (["training.patience=0"], ["training.patience: ", "greater than 0"]),
            (["training.precision=fp8"], ["training.precision: ", "'fp32', 'bf16' or 'fp16'"]),
            (["training.weights=first"], ["training.weights: ", "'last' or 'best'"]),
            (["training.free_bits_per=word"], ["training.free_bits_per: ", "'dimension'"]),
            (["training.kl_weight=-1"], ["training.kl_weight: ", "greater than or equal to 0"]),
            (["training.kl_weight=high"], ["training.kl_weight: Input should be a valid number"]),
            (["training.kl_weight.schedule=x"], ["training.kl_weight.schedule: ", "'cosine'"]),
            (["training.kl_weight.steps=9"], ["training.kl_weight: give either steps or epochs"]),
            (["training.kl_weight.ramp=1.0"], ["ramp goes with the schedule 'cyclical' alone"]),
            (
                ["training.kl_weight={schedule='cyclical', steps=9, ramp=0.0}"],
                ["training.kl_weight.ramp: ", "greater than 0"],
            ),
            (["training.kl_weight.start=2.0"], ["training.kl_weight.start: ", "or equal to 1"]),
            (["seed=1", "seeds=[2]"], ["the file: give either seed or seeds"]),
            (["seeds=[2, 2]"], ["the file: seeds must differ"]),
            (["seeds=[]"], ["seeds: List should have at least one number"]),
            (["variants={}"], ["variants: Dictionary should have at least 1 item"]),
            (["variants.'a/b'={}"], ["a/b", "match pattern"]),
            (["initialisation.epochs=0"], ["initialisation.epochs: ", "greater than 0"]),
            (["initialisation.epochs=2", "model.latent_size=0"], ["latent_size 0 has none"]),
        ],
    )
    def test_the_message_names_the_key_and_what_is_allowed(
        self, reviews_toml: Path, settings: list[str], faults: list[str]
    ) -> None:
        with pytest.raises(ValueError, match="does not describe an experiment") as caught:
            load_experiment(reviews_toml, settings)
        header, *lines = str(caught.value).splitlines()
        assert str(reviews_toml) in header
        assert len(lines) == 1
        for fault in faults:
            assert fault in lines[0]

    @pytest.mark.parametrize(
        ("setting", "keys"),
        [
            ("model.size=3", "latent_size"),
            ("decoder.filters=3", "kind, tied, embedding_size, hidden_size, "),
            ("training.kl_weight={schedule='linear', step=3}", "schedule, steps, epochs, "),
            ("variants.x.encoder.size=3", "kind, embedding_size, hidden_size, pooling"),
            ("epochs=3", "name, kind, seed, seeds, corpus, "),
        ],
    )
    def test_an_unknown_key_is_told_the_known_ones(
        self, reviews_toml: Path, setting: str, keys: str
    ) -> None:
        """Those of its own section, whatever kind of section that is."""
        with pytest.raises(ValueError, match="Extra inputs") as caught:
            load_experiment(reviews_toml, [setting])
        (line,) = (line for line in str(caught.value).splitlines() if "Extra inputs" in line)
        assert f"; the keys here are {keys}" in line

    def test_a_code_needs_an_encoder(self, reviews_toml: Path, tmp_path: Path) -> None:
        path = changed(reviews_toml, tmp_path, "[encoder]", "[variants.x.encoder]")
        with pytest.raises(ValueError, match=r"needs an \[encoder\]"):
            load_experiment(path)
        load_experiment(path, ["model.latent_size=0"])

    @pytest.mark.parametrize(
        ("dilations", "faults"),
        [
            ("small", []),
            ("[1, 5]", []),
            ("tiny", ["decoder.dilations: Input should be 'small', 'medium', 'large'"]),
            ("[]", ["decoder.dilations: List should have at least one number"]),
            ("[2, 0]", ["decoder.dilations.1: Input should be greater than 0"]),
            ("[1.5, 2]", ["decoder.dilations.0: Input should be a valid integer"]),
        ],
    )
    def test_dilations(self, reviews_toml: Path, dilations: str, faults: list[str]) -> None:
        decoder = "{kind='dilated_cnn', embedding_size=3, channels=4}"
        settings = [f"decoder={decoder}", f"decoder.dilations={dilations}"]
        if not faults:
            load_experiment(reviews_toml, settings)
            return
        with pytest.raises(ValueError, match="dilations") as caught:
            load_experiment(reviews_toml, settings)
        lines = str(caught.value).splitlines()[1:]
        assert len(lines) == len(faults)
        assert all(line.startswith(fault) for line, fault in zip(lines, faults, strict=True))

    def test_faults_of_a_variant_name_it(self, sweep_toml: Path) -> None:
        settings = [
            "variants.vae.training.epoch=3",
            "variants.vae.seed=3",
            "variants.cnn.decoder.dilations=[1, 0]",
            "variants.other.encoder.kind=rnn",
        ]
        with pytest.raises(ValueError, match="does not describe an experiment") as caught:
            load_experiment(sweep_toml, settings)
        assert [line.split(": ")[0] for line in str(caught.value).splitlines()[1:]] == [
            "variants.vae.seed",
            "variants.vae.training.epoch",
            "variants.cnn.decoder.dilations.1",
            "variants.other.encoder.kind",
            "variants.other.encoder.embedding_size",
            "variants.other.encoder.hidden_size",
        ]

    @pytest.mark.parametrize(
        "setting", ["seed=3", "corpus.train_size=9", "training.kl_weight=0.25", "decoder.width=2"]
    )
    def test_the_configuration_describes_the_same_experiment(
        self, tmp_path: Path, setting: str
    ) -> None:
        """Also after a results file has held it."""
        path = tmp_path / "x.toml"
        path.write_text(PTB)
        experiment = load_experiment(path, [setting])
        configuration = json.loads(json.dumps(experiment.configuration(), allow_nan=False))
        assert validate_experiment(configuration) == experiment
        assert experiment != load_experiment(path)


def test_a_recorded_configuration_from_before_there_were_kinds(digits_toml: Path) -> None:
    experiment = load_experiment(digits_toml)
    configuration = experiment.configuration()
    del configuration["kind"]
    assert validate_experiment(configuration) == experiment


class TestMerging:
    @given(TABLES, TABLES)
    def test_what_the_second_says_holds_and_the_rest_is_the_first_s(
        self, first: dict[str, Any], second: dict[str, Any]
    ) -> None:
        before = deepcopy((first, second))
        result = leaves(merged(first, second))
        assert (first, second) == before
        of_second = leaves(second)
        assert all(result[keys] == value for keys, value in of_second.items())
        for keys, value in result.items():
            assert of_second.get(keys, leaves(first).get(keys)) == value

    @given(TABLES)
    def test_nothing_and_itself_change_nothing(self, table: dict[str, Any]) -> None:
        assert merged(table, {}) == table == merged(table, table) == merged({}, table)

    @pytest.mark.parametrize("key", ["kind", "schedule"])
    def test_a_table_of_another_kind_replaces(self, key: str) -> None:
        table = {"x": {key: "lstm", "size": 3, "rate": 0.5}, "y": 1}
        assert merged(table, {"x": {key: "cnn", "width": 2}}) == {
            "x": {key: "cnn", "width": 2},
            "y": 1,
        }
        assert merged(table, {"x": {key: "lstm", "size": 4}}) == {
            "x": {key: "lstm", "size": 4, "rate": 0.5},
            "y": 1,
        }


class TestRuns:
    def test_every_variant_with_every_seed(self, sweep_toml: Path) -> None:
        runs = described(sweep_toml).runs()
        assert [run.label for run in runs] == ALL
        assert [run.experiment.seed for run in runs] == [1, 4] * 3
        for run in runs:
            experiment = run.experiment
            assert not experiment.is_sweep
            assert experiment.name == "tiny_sweep"
            is_cnn = run.variant == "cnn"
            assert experiment.decoder.kind == ("dilated_cnn" if is_cnn else "lstm")
            assert experiment.training.epochs == (3 if is_cnn else 4)
            assert experiment.model.latent_size == (0 if run.variant == "language_model" else 3)
            assert experiment.training.batch_size == 32

    def test_seeds_alone(self, reviews_toml: Path) -> None:
        runs = described(reviews_toml, "seeds=[7, 5]").runs()
        assert [run.label for run in runs] == ["all-7", "all-5"]

    def test_variants_alone(self, reviews_toml: Path) -> None:
        experiment = described(reviews_toml, "variants.a.model.latent_size=2", "seed=9")
        assert experiment.is_sweep
        assert [run.label for run in experiment.runs()] == ["a-9"]

    def test_neither(self, reviews_toml: Path) -> None:
        assert not described(reviews_toml).is_sweep

    @pytest.mark.parametrize("key", ["name", "seed", "seeds", "corpus", "variants", "kind"])
    def test_what_a_variant_may_not_change(self, sweep_toml: Path, key: str) -> None:
        message = rf"\nvariants\.vae\.{key}: All runs of a sweep have this in common"
        with pytest.raises(ValueError, match=message):
            described(sweep_toml, f"variants.vae.{key}=3")
