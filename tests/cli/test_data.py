"""`mlxstories data`."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.cli.options import data_options
from mlxstories.data import source
from mlxstories.data.dataset import DataConfig


def run(*args):
    return CliRunner().invoke(main, ["data", *args])


def test_show_prints_the_stories_of_a_seed():
    result = run("show", "--stories", "2", "--seed", "7")
    assert result.exit_code == 0
    assert result.output == "\n\n".join(source.texts(2, 7)) + "\n"


def test_show_says_what_is_known_of_a_story():
    story = source.stories(1, 7)[0]
    output = run("show", "--stories", "1", "--seed", "7", "--floor").output
    assert f"{len(story.kind)} tokens, {story.nats.mean():.3f} nats per token" in output
    assert "% recall" in output


def test_show_prints_the_stories_of_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "One."}\n{"story": "Two."}\n')
    result = run("show", "--data", str(tmp_path), "--field", "story", "--stories", "1")
    assert (result.exit_code, result.output) == (0, "One.\n")


def test_stats_count_the_built_in_stories():
    result = run("stats", "--stories", "20", "--validation", "5")
    assert result.exit_code == 0
    for expected in ("20 stories", "5 stories", "0.00% unknown", "0 exact duplicates", "floor ", "recall: "):
        assert expected in result.output
    report = json.loads(run("stats", "--stories", "20", "--validation", "5", "--json").output)
    assert report["train"]["stories"] == 20 and report["floor"]["nats"] > 0.5


def test_stats_count_the_stories_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"{i} little words ran far away from home" for i in range(9)))
    result = run("stats", "--data", str(tmp_path / "a.txt"))
    assert result.exit_code == 0 and "floor unknown" in result.output
    assert "validation stories closely resemble" in result.output


def test_prepare_then_use(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Tom saw {i} red birds." for i in range(30)))
    args = ("prepare", str(tmp_path / "a.txt"), "--to", str(tmp_path / "shards"), "--validation", "4")
    for _ in range(2):
        result = run(*args)
        assert result.exit_code == 0, result.output
        assert "26 stories to train on, 4 held out; 0 exact duplicates removed" in result.output
        assert f"mlxstories train --data {tmp_path / 'shards'}" in result.output
    assert "is whole: 182 tokens to train on" in run("verify", str(tmp_path / "shards")).output
    assert "26 stories" in run("stats", "--data", str(tmp_path / "shards")).output
    shown = run("show", "--data", str(tmp_path / "shards"), "--stories", "2").output
    assert shown.count("Tom saw") == 2


def test_sources_that_are_refused_leave_no_directory(tmp_path):
    bad = tmp_path / "a.jsonl"
    bad.write_text('{"text": "Tom ran."}\n{"text": "Tom \\ud800."}\n')
    result = run("prepare", str(bad), "--to", str(tmp_path / "shards"))
    assert result.exit_code == 2 and "line 2: '\\ud800' is half a character" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_only_a_whole_directory_is_verified(tmp_path):
    result = run("verify", str(tmp_path))
    assert result.exit_code == 2 and "is no prepared directory" in result.output
    assert run("prepare", "--to", str(tmp_path / "x")).exit_code == 2
    (tmp_path / "notes.txt").write_text("Mine.")
    result = run("prepare", "stories", "--stories", "20", "--to", str(tmp_path))
    assert result.exit_code == 2 and "holds something else" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "--data", "missing.txt"), "missing.txt does not exist"),
        (("show", "--stories", "0"), "0 is not in the range"),
        (("show", "--data", "tinystories", "--floor"), "built-in stories alone"),
        (("stats", "--data", "missing.txt"), "missing.txt does not exist"),
        (("stats", "--stories", "-1"), "-1 is not in the range"),
        (("stats", "--data", "stories", "--data", "x.txt"), "cannot be mixed"),
        (("stats", "--tokenizer", "syllable"), "'syllable' is not one of"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, message):
    result = run(*args)
    assert result.exit_code == 2 and message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("data show --data a.txt --seed 3", "--seed is of the built-in stories"),
        ("data show --separator line", "--separator is for text files"),
        ("data show --field story --data a.txt", "--field names a column"),
        ("data stats --data a.jsonl --separator line", "--separator is for text files"),
        ("data stats --split tail", "--split is for files"),
        ("data stats --data a.txt --split tail --data-seed 3", "--data-seed has nothing to draw"),
        ("data prepare tinystories --data-seed 3 --to new", "--data-seed has nothing to draw"),
        ("data prepare a.txt --field story --to new", "--field names a column"),
        ("data show --data prep --field story", "prep was read when it was prepared: leave out --field"),
        ("train --runs a.txt", "Directory 'a.txt' is a file"),
        ("train run", "Did you mean --resume run, or --from run?"),
        ("train a.txt", "Did you mean --data a.txt?"),
        (
            "sample lost",
            "lost is not a run: no such directory with a config.json, here or under runs/. There are mine.",
        ),
        ("debug tales", "tales: a directory, and no run; give a training script or notebook"),
        ("debug a.txt", "a.txt: not a Python file; give a training script or notebook, or a Python file"),
        ("compare --arms a.txt", "a.txt cannot be read as JSON"),
        ("train --separator line", "--separator is for text files"),
        ("train --data a.txt --field story", "--field names a column"),
        ("train --max-repairs 2", "--max-repairs goes with --repair"),
        ("train --schedule constant --warmup 5", "--warmup has no effect with the schedule constant"),
        ("train --set optimizer.momentum=0.9 --phase 1", "no effect with the optimizer adamw: leave it out"),
        (
            "train --data a.txt --set schedule.dim=8",
            "no effect with the schedule wsd: leave it out, or take noam",
        ),
        ("compare --separator line", "--separator is for text files"),
        ("info --layers 3", "--layers describes the model of --cost"),
        ("info --check --cost", "give one of them"),
    ],
)
def test_what_is_refused_says_what_to_do(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Tom ran.\n\nAnn ran.")
    (tmp_path / "a.jsonl").write_text('{"text": "Tom ran."}\n{"text": "Ann ran."}\n')
    for folder in ("prep", "tales", "run", "runs/mine"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("prep/shards.json", "run/config.json", "runs/mine/config.json"):
        (tmp_path / file).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        "show --field text --separator auto",
        "show --data a.txt --separator line",
        "show --data a.txt --data a.jsonl --separator line --field text",
        "stats --data a.jsonl --field text --split tail --validation 1",
        "stats --stories 5 --validation 2 --data-seed 3",
    ],
)
def test_an_option_with_an_effect_or_at_its_default_is_taken(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Tom ran.\n\nAnn ran.")
    (tmp_path / "a.jsonl").write_text('{"text": "Tom sat."}\n{"text": "Ann sat."}\n')
    result = run(*words.split())
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("", DataConfig()),
        ("--data tinystories --stories 7", DataConfig("tinystories", stories=7)),
        (
            "--data a.jsonl --data b.txt --validation 3 --field f --separator file --tokenizer bpe --vocab-size 500 "
            "--data-seed 9",
            DataConfig(("a.jsonl", "b.txt"), None, 3, "f", "file", "bpe", 500, "seeded", 9),
        ),
        ("--data b.txt --split tail", DataConfig("b.txt", split="tail")),
    ],
)
def test_options_build_a_configuration(tmp_path, monkeypatch, args, expected):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.txt"):
        (tmp_path / name).touch()

    @click.command()
    @data_options
    def command(data):
        assert data == expected

    CliRunner().invoke(command, args.split(), catch_exceptions=False, standalone_mode=False)
