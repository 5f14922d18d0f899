"""`mlxstories train` on a folder of one's own: what is chosen, what is overridden, and going on from a model."""

import json

import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.training_parts import in_a_line
from mlxstories.data import source
from mlxstories.training.recommended import recommended


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "tales").mkdir()
    for number, text in enumerate(source.texts(12, 3)):
        (folder / "tales" / f"{number}.txt").write_text(text)
    (folder / "tales" / "cover.jpg").write_bytes(b"\0")
    return folder


def train(place, name, *options):
    where = ["--data", str(place / "tales"), "--runs", str(place / "runs"), "--name", name, "--no-check"]
    return CliRunner().invoke(main, ["train", *where, "--steps", "2", *options])


@pytest.fixture(scope="module")
def first(place):
    result = train(place, "first")
    assert result.exit_code == 0, result.output
    return result


def config(place, name):
    return json.loads((place / "runs" / name / "config.json").read_text())


def test_what_suits_is_chosen_and_said(place, first):
    found = config(place, "first")
    assert (found["data"]["tokenizer"], found["data"]["vocab_size"]) == ("bpe", 512)
    assert found["model"]["layers"] == 2 and found["model"]["dropout"] == 0.3
    assert found["phase"]["name"] == "phase 3" and found["phase"]["optimizer"]["weight_decay"] == 0.1
    assert found["training"]["batch_size"] == 1 and found["training"]["stop_after"] == 4
    assert "very little text, so size debug, bpe tokens, vocabulary 512" in first.stderr
    assert "12 files read." in first.stderr and "not read: cover.jpg." in first.stderr
    assert "epochs" not in first.stderr  # updates were given instead


def test_where_all_is_given_nothing_is_said_to_be_chosen():
    found = recommended(["Once there was a fox. " * 40] * 3)
    assert in_a_line(found, {"stop_after": 4}).endswith("stories of about 880 characters: very little text.")


def test_a_given_option_goes_before_what_suits(place, first):
    result = train(
        place,
        "given",
        "--phase",
        "1",
        "--lr",
        "0.001",
        "--tokenizer",
        "char",
        "--dropout",
        "0",
        "--stop-after",
        "0",
    )
    assert result.exit_code == 0, result.output
    found = config(place, "given")
    assert found["data"]["tokenizer"] == "char" and found["model"]["dropout"] == 0
    assert found["phase"]["name"] == "phase 1" and found["phase"]["optimizer"]["learning_rate"] == 0.001
    assert found["phase"]["optimizer"]["weight_decay"] == 0 and found["training"]["stop_after"] is None


def test_changes_of_a_phase_that_is_not_given_are_made_to_the_one_that_suits(place, first):
    assert train(place, "rate", "--lr", "0.001").exit_code == 0
    found = config(place, "rate")["phase"]
    assert found["name"] == "phase 3" and found["optimizer"]["learning_rate"] == 0.001


def test_going_on_from_a_run_keeps_its_model_and_tokenizer(place, first):
    result = train(place, "further", "--from", "first")
    assert result.exit_code == 0, result.output
    old, new = config(place, "first"), config(place, "further")
    assert new["model"] == old["model"]
    rates = [c["phase"]["optimizer"]["learning_rate"] for c in (old, new)]
    assert rates[1] == pytest.approx(0.3 * rates[0])
    tokenizers = [(place / "runs" / name / "tokenizer.json").read_text() for name in ("first", "further")]
    assert tokenizers[0] == tokenizers[1]
    losses = [
        [
            json.loads(line)["loss"]
            for line in (place / "runs" / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("first", "further")
    ]
    assert losses[1][0] < losses[0][0]  # before its first update it knows something already
    assert new["begun"] == {"directory": str(place / "runs" / "first"), "step": 2}


def test_going_on_from_an_exported_model(place, first):
    runs = ["--runs", str(place / "runs")]
    exported = CliRunner().invoke(main, ["export", "first", "--to", str(place / "exported"), *runs])
    assert exported.exit_code == 0, exported.output
    result = train(place, "imported", "--from", str(place / "exported"))
    assert result.exit_code == 0, result.output
    assert config(place, "imported")["model"] == config(place, "first")["model"]


@pytest.mark.long
def test_going_on_with_the_record_is_slower_in_both_of_its_rates(place, first):
    where = ["--runs", str(place / "runs"), "--name", "slower", "--no-check", "--steps", "1"]
    result = CliRunner().invoke(main, ["train", "--from", "first", "--stories", "40", *where])
    assert result.exit_code == 0, result.output
    optimizer = config(place, "slower")["phase"]["optimizer"]
    assert optimizer["learning_rate"] == pytest.approx(0.3 * 0.02)
    assert optimizer["rest_learning_rate"] == pytest.approx(0.3 * 0.05)


def test_a_training_that_helped_nothing_says_so(place, first):
    assert "no update has made it better" not in first.stdout
    result = train(place, "wild", "--lr", "5")
    assert result.exit_code == 0 and "no update has made it better" in result.stdout


def test_a_model_of_another_size_is_no_way_to_go_on(place, first):
    result = train(place, "larger", "--from", "first", "--size", "base")
    assert result.exit_code == 2 and "--size belongs to the model of --from first" in result.stderr
    assert not (place / "runs" / "larger").exists()


@pytest.mark.long
def test_an_architecture_of_mlx_lm_is_trained_and_gone_on_from_without_dropout(place):
    result = train(place, "llama", "--arch", "mlx-lm:llama")
    assert result.exit_code == 0, result.output
    assert "vocabulary 512" in result.stderr and "dropout" not in result.stderr
    result = train(place, "llama-further", "--from", "llama")
    assert result.exit_code == 0, result.output
    assert config(place, "llama-further")["model"] == config(place, "llama")["model"]
    result = train(place, "dropped", "--from", "llama", "--dropout", "0.1")
    assert result.exit_code == 2 and "leave out --dropout" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "there is no command 'trian'. Did you mean 'train'?"),
        (["train", "--learning-rate", "1"], "Did you mean '--lr'?"),
        (["train", "--epoch", "1"], "Did you mean '--epochs'?"),
        (["train", "--form", "first"], "Did you mean '--from'?"),
        (["debug", "--break", "no-casual-mask"], "Did you mean 'no-causal-mask'?"),
    ],
)
def test_what_was_mistyped_is_guessed(arguments, words):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and words in result.stderr


@pytest.mark.parametrize("command", ["train", "data stats", "data show", "compare"])
def test_a_folder_without_its_option_is_guessed(tmp_path, command):
    (tmp_path / "my tales").mkdir()
    result = CliRunner().invoke(main, [*command.split(), str(tmp_path / "my tales")])
    assert result.exit_code == 2 and f"Did you mean --data '{tmp_path}/my tales'?" in result.stderr
    assert "Did you mean" not in CliRunner().invoke(main, [*command.split(), "nowhere"]).stderr


def test_a_pattern_that_the_shell_replaced_is_guessed(tmp_path):
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).touch()
    files = [str(tmp_path / name) for name in ("a.py", "b.py", "c.py")]
    result = CliRunner().invoke(main, ["train", "--data", *files])
    assert result.exit_code == 2 and "a pattern in quotes" in result.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["debug", "--break", "no-causal"], "no-causal-mask"),
        (["train", "--optimizer", "mu"], "muon"),
        (["train", "--schedule", "ws"], "wsd"),
        (["train", "--set", "optimizer.learn"], "optimizer.learning_rate="),
        (["train", "--data", "tiny"], "tinystories"),
    ],
)
def test_the_shell_completes_names(words, completed):
    from click.shell_completion import BashComplete

    complete = BashComplete(main, {}, "mlxstories", "_MLXSTORIES_COMPLETE")
    assert completed in [item.value for item in complete.get_completions(words[:-1], words[-1])]


def test_a_run_whose_texts_are_gone_or_changed_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "tales").mkdir()
    for number, text in enumerate(source.texts(12, 3)):
        (tmp_path / "tales" / f"{number}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    where = ["--data", "tales", "--name", "run", "--no-check", "--steps", "2"]
    assert CliRunner().invoke(main, ["train", *where]).exit_code == 0
    (tmp_path / "tales").rename(tmp_path / "moved")
    gone = CliRunner().invoke(main, ["train", "--resume", "run"])
    assert gone.exit_code == 2 and "tales does not exist" in gone.stderr
    assert "from the folder where it was started" in gone.stderr
    (tmp_path / "moved").rename(tmp_path / "tales")
    (tmp_path / "tales" / "new.txt").write_text("One more.")
    changed = CliRunner().invoke(main, ["train", "--resume", "run"])
    assert changed.exit_code == 2 and "train --from runs/run" in changed.stderr
