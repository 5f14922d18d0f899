"""Run directories: whole or absent, and one clear line for every kind of damage."""

import json

import pytest

from mlxstories.data.tokenizer import Tokenizer
from mlxstories.errors import StoriesError
from mlxstories.runs.directory import Run, find_run, new_directory, write_text


@pytest.fixture
def run(tmp_path):
    tokenizer = Tokenizer.train("word", ["once upon a time"], 50)
    return Run.create(tmp_path / "runs" / "first", {"seed": 1}, tokenizer)


def test_a_new_run_can_be_found_by_path_by_name_and_as_the_newest(run):
    runs = run.path.parent
    assert find_run(run.path).path == find_run("first", runs).path == find_run(None, runs).path == run.path
    assert run.config["seed"] == 1


def test_an_existing_run_is_never_overwritten(run):
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(StoriesError, match="exists already"):
        Run.create(run.path, {}, run.tokenizer())
    assert (run.path / "config.json").read_bytes() == before


def test_a_directory_that_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(StoriesError, match="No space left"), new_directory(tmp_path / "half") as staging:
        (staging / "file").write_text("part")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_cannot_be_written_keeps_the_old_one(tmp_path):
    path = tmp_path / "result"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"


def measured(step):
    return {"step": step, "split": "val"}


def test_a_last_line_of_metrics_cut_by_a_crash_is_left_out(run):
    run.append(measured(1))
    run.append(measured(2))
    path = run.path / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])
    assert run.metrics() == [measured(1)]
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(StoriesError, match="line 1"):
        run.metrics()


def test_metrics_after_a_step_can_be_dropped(run):
    for step in range(5):
        run.append(measured(step))
    assert run.rewind(2) == run.metrics() == [measured(0), measured(1), measured(2)]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', "\x00"])
def test_a_damaged_configuration_is_one_clear_line(run, content):
    (run.path / "config.json").write_text(content)
    with pytest.raises(StoriesError, match=r"config\.json") as error:
        _ = run.config
    assert "\n" not in str(error.value)


def test_unknown_runs_and_empty_folders_are_named(tmp_path):
    with pytest.raises(StoriesError, match="no run under"):
        find_run(None, tmp_path)
    with pytest.raises(StoriesError, match="nosuch"):
        find_run("nosuch", tmp_path)


def test_half_written_folders_are_not_runs(run):
    hidden = run.path.parent / ".second-x1"
    hidden.mkdir()
    (hidden / "config.json").write_text(json.dumps({"format": 1}))
    assert find_run(None, run.path.parent).path == run.path
