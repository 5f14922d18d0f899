"""`mlxstories sample` on a small run with random weights."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import mlx.core as mx
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.conversation import Conversation
from mlxstories.data.tokenizer import Tokenizer
from mlxstories.model import ModelConfig, Transformer
from mlxstories.optim import OptimizerConfig, build_optimizer
from mlxstories.runs import checkpoints
from mlxstories.runs.directory import Run
from mlxstories.storage.serialize import to_dict

TEXT = "Tom lost a red ball. Tom was sad. Mia found the ball, and Tom was happy."


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, arch in (("encoder", "encoder"), ("decoder", "decoder")):
        tokenizer = Tokenizer.train("word", [TEXT], 100)
        config = ModelConfig(
            tokenizer.vocab_size, dim=16, layers=1, heads=2, context=20, arch=arch, separator=0
        )
        mx.random.seed(2)
        model = Transformer(config)
        run = Run.create(folder / name, {"model": to_dict(config)}, tokenizer)
        optimizer = build_optimizer(OptimizerConfig(), lambda step: mx.array(1e-3))
        optimizer.init(model.trainable_parameters())
        checkpoints.save(run, model, optimizer, {"step": 1, "val_loss": 2.0})
    return folder


@pytest.fixture
def sample(runs):
    def call(*options, run="decoder"):
        return CliRunner().invoke(main, ["sample", run, "--runs", str(runs), *options])

    return call


def test_stories_go_to_stdout_and_statistics_to_stderr(sample):
    result = sample("--num", "2", "--prompt", "Tom was", "--seed", "3")
    assert result.exit_code == 0, result.output
    stories = result.stdout.rstrip("\n").split("\n\n")
    assert len(stories) == 2 and all(story.startswith("Tom was") for story in stories)
    assert "distinct 1-, 2-, 3-grams" in result.stderr and "distinct" not in result.stdout


def test_streamed_stories_are_the_same(sample):
    options = ("--num", "3", "--seed", "5", "--temperature", "1.2", "--no-repeat-ngram", "3")
    plain, streamed = sample(*options), sample(*options, "--stream")
    for whole, shown in zip(streamed.stdout.split("\n\n"), plain.stdout.split("\n\n"), strict=False):
        # of which the last half sentence is left out
        assert whole.startswith(shown.strip("\n")) and shown.strip()
    assert plain.stderr == streamed.stderr
    assert plain.stdout == sample(*options).stdout != sample(*options, "--seed", "6").stdout


@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_words_never_seen_are_told_on_with_a_note(sample, how):
    result = sample("--prompt", "Tom losst a zebra", "--num", "1", "--seed", "1", *how)
    assert result.exit_code == 0 and result.stdout.startswith("Tom losst a zebra")
    assert "note: the model never saw 'losst': 'lost' stands for it" in result.stderr
    assert "note: the model never saw 'zebra': it is told as an unknown word" in result.stderr


def test_of_a_prompt_longer_than_the_context_the_end_is_told_on(sample):
    result = sample("--prompt", "Tom " * 30, "--num", "1")
    assert result.exit_code == 0 and result.stdout.startswith("Tom " * 30)
    assert (
        "the prompt has 30 tokens and the model's context is 20: it tells on from the last 10"
        in result.stderr
    )


def test_without_a_seed_each_time_another_is_drawn_and_printed(sample):
    seeds = [re.search(r"^seed (\d+),", sample().stderr, re.M)[1] for _ in range(3)]
    assert len(set(seeds)) > 1
    assert sample("--seed", seeds[0]).stdout == sample("--seed", seeds[0]).stdout


def test_at_a_terminal_beginnings_are_typed(monkeypatch, capsys, tmp_path):
    told = []

    def tell(beginning, temperature, seed):
        told.append((beginning, temperature, seed))
        return f"{beginning} and so on.", ["a note"]

    typed = iter(
        [
            "Once",
            "again",
            "temperature 0.5",
            "temperature",
            "save",
            "",
            f"save {tmp_path / 'kept.txt'}",
            "quit",
            "never",
        ]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    Conversation(tell, 0.8, 7).run()
    assert told == [("Once", 0.8, 7), ("Once", 0.8, 8), ("", 0.5, 9)]
    assert (tmp_path / "kept.txt").read_text() == " and so on.\n\n"
    said = capsys.readouterr().out
    assert "(seed 8, temperature 0.8)" in said and "save FILE" in said
    assert said.count("temperature 0.5: higher is freer") == 2


def test_a_temperature_that_cannot_be_is_not_kept(capsys):
    told = []
    conversation = Conversation(lambda *asked: told.append(asked) or ("So.", []), 0.8, 7)
    for line in ("temperature inf", "temperature -1", "Tom"):
        conversation.answer(line)
    assert {temperature for _, temperature, _ in told} == {0.8} and told[-1][0] == "Tom"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "Zoë"), ("utf-8", "Zoë"), ("latin-1", "ZoÃ«")])
def test_what_is_typed_is_read_in_any_encoding(encoding, shown):
    leader, follower = pty.openpty()
    os.write(leader, "Zoë\n".encode() + b"\xff\nquit\n")
    code = (
        "from mlxstories.cli.conversation import Conversation\n"
        "told = []\n"
        "Conversation(lambda beginning, *_: (told.append(beginning), ('', []))[1], 0.8, 1).run()\n"
        "print(ascii(told[0]), len(told))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], stdin=follower, capture_output=True, env=environment)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).splitlines()[-1].removeprefix("> ") == f"{shown!a} 2"


def test_json(sample):
    told = json.loads(sample("--num", "2", "--max-tokens", "4", "--json").stdout)
    assert len(told["stories"]) == 2 and 0 <= told["distinct_1"] <= 1
    assert all(len(story["tokens"]) <= 4 for story in told["stories"])


@pytest.mark.parametrize(
    ("options", "run", "words"),
    [
        (("--top-p", "0"), "decoder", "--top-p must be in (0, 1]; got 0.0"),
        (("--top-k", "5", "--temperature", "0"), "decoder", "--top-k has no effect at --temperature 0"),
        (("--seed", "5", "--temperature", "0"), "decoder", "--seed has no effect at --temperature 0"),
        (("--num", "0"), "decoder", "0 is not in the range"),
        (("--max-tokens", "-2"), "decoder", "-2 is not in the range"),
        (("--stream", "--json"), "decoder", "exclude each other"),
        ((), "encoder", "an encoder cannot tell stories"),
        ((), "nowhere", "nowhere is not a run"),
    ],
)
def test_bad_requests_are_one_line_and_exit_code_2(sample, options, run, words):
    result = sample(*options, run=run)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert words in " ".join(result.stderr.split())
