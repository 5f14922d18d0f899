"""Arms, statistics and studies."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from mlx.utils import tree_flatten
from rich.console import Console

from mlxstories.cli import main
from mlxstories.cli.compare import _LEFT_OUT, _grid
from mlxstories.comparison import Arm, Study, StudyConfig, arms, cells, document, workers
from mlxstories.comparison.cells import Cell, Setting
from mlxstories.comparison.conclusion import answer, effects
from mlxstories.comparison.document import markdown
from mlxstories.comparison.study import as_dict
from mlxstories.data.dataset import DataConfig
from mlxstories.errors import StoriesError
from mlxstories.plots.comparison import figures
from mlxstories.training.phases import PHASE_1, PHASE_2, PHASES, override

SETTING = Setting(DataConfig(stories=24, validation=8), "debug", 1, 4, "tokens", (("context", 64),))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def tables(store):
    return Study(StudyConfig(arms.phases(), [SETTING], [0, 1]), store).run()


@pytest.fixture(scope="module")
def ablated(store):
    return Study(StudyConfig(arms.ablation(), [SETTING], [0, 1]), store).run()


# Arms


def test_each_ingredient_is_changed_alone():
    one, two = Arm("phase 1", PHASE_1), Arm("phase 2", PHASE_2)
    for arm in arms.ablation()[2:]:
        base = one if arm.name.startswith("phase 1") else two
        assert len(arms.changed(base, arm)) == 1


@pytest.mark.parametrize(
    "suffix, text",
    [
        ("json", '{"a": {"phase": 2}, "b": {"optimizer.learning_rate": 3e-4, "model.layers": 3}}'),
        ("toml", "[a]\nphase = 2\n[b]\noptimizer.learning_rate = 3e-4\nmodel.layers = 3\n"),
    ],
)
def test_arms_from_a_file(tmp_path, suffix, text):
    if suffix == "toml":
        pytest.importorskip("tomllib")
    path = tmp_path / f"arms.{suffix}"
    path.write_text(text)
    a, b = arms.read_arms(path)
    assert a.phase == PHASE_2
    assert b.phase.optimizer.learning_rate == 3e-4 and dict(b.model) == {"layers": 3}


@pytest.mark.parametrize(
    "content, message",
    [
        ({"a": {"tokenizer": "char"}, "b": {}}, "other data or another tokenizer"),
        ({"a": {"data.seed": 3}, "b": {}}, "other data or another tokenizer"),
        ({"a": {"lr": 3}, "b": {}}, "no field 'lr'"),
        ({"a": {"phase": 9}, "b": {}}, "phase must be one of 1, 2, 3"),
        ({"a": {"model.context": 9}, "b": {}}, "cannot differ between arms"),
        ({"a": {}}, "at least 2 arms"),
        ([1], "give arms as"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(tmp_path, content, message):
    path = tmp_path / "arms.json"
    path.write_text(json.dumps(content))
    with pytest.raises(StoriesError, match=message):
        arms.read_arms(path)


# Studies


def test_arms_share_weights_batches_and_tokens():
    weights, batches = [], []
    for arm in (Arm("1", PHASE_1), Arm("3", override(PHASE_1, {"qk_norm": True}))):
        shape = SETTING.shape(arm, cells.load(SETTING.data))
        weights.append(dict(tree_flatten(cells.experiment.new_model(shape, 7).parameters())))
        stream = cells.Stream(cells.load(SETTING.data).train, 64, Cell(arm, SETTING, 7, 2).training())
        batches.append([next(stream) for _ in range(3)])
    assert all(mx.array_equal(array, weights[1][name]) for name, array in weights[0].items())
    pairs = zip(*batches, strict=True)
    assert all(mx.array_equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


def test_equal_tokens_and_equal_updates(tables, store):
    assert len({tuple(row.values("tokens")) for row in tables[0].rows}) == 1
    updates = {row.arm.phase.accumulation: row.values("updates")[0] for row in tables[0].rows}
    assert updates[1] == 2 * updates[2]
    by_updates = Setting(*list(vars(SETTING).values())[:4], "updates", SETTING.model)
    two = [Arm("phase 1", PHASE_1), Arm("phase 2", PHASE_2)]
    table = Study(StudyConfig(two, [by_updates], [0]), store).run()[0]
    assert len({row.values("updates")[0] for row in table.rows}) == 1


def test_finished_trainings_are_never_repeated(tables, store, monkeypatch):
    monkeypatch.setattr(cells, "_trainer", None)
    again = Study(StudyConfig(arms.phases(), [SETTING], [0, 1]), store).run()
    assert as_dict(again)["settings"][0] == as_dict(tables)["settings"][0]


def test_an_interrupted_training_is_continued(tables, tmp_path, store):
    cell = Cell(arms.phases()[0], SETTING, 0, tables[0].rows[0].values("updates")[0])
    path = tmp_path / cell.key()
    trainer = cells._trainer(cell, path)
    report = trainer.run.append

    def stop(record):
        report(record)
        if record["step"] >= 2:
            raise KeyboardInterrupt

    trainer.run.append = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    result = cells.run(cell, tmp_path)
    assert result["loss"] == cells.run(cell, store)["loss"]


def test_an_arm_against_itself_is_undecided(store):
    null = [Arm("one", PHASE_1), Arm("the same", PHASE_1)]
    table = Study(StudyConfig(null, [SETTING], [0, 1]), store).run()[0]
    found = table.rows[1].differences["loss"]
    assert (found.verdict, found.estimate.mean) == ("undecided", 0)
    assert "they are the same" in answer(table)


def test_what_changes_the_result_changes_the_key():
    cell = Cell(Arm("a", PHASE_1), SETTING, 0, 4)
    same = Cell(Arm("b", PHASE_1), SETTING, 0, 4)
    others = [
        Cell(Arm("a", PHASE_2), SETTING, 0, 4),
        Cell(Arm("a", PHASE_1, {"layers": 3}), SETTING, 0, 4),
        Cell(Arm("a", PHASE_1), SETTING, 1, 4),
        Cell(Arm("a", PHASE_1), SETTING, 0, 5),
    ]
    assert cell.key() == same.key() and cell.key() not in {other.key() for other in others}


@pytest.mark.long
def test_the_answer_attributes_what_was_measured(ablated):
    found = effects(ablated[0])
    assert {effect.name for effect in found} == set(arms.INGREDIENTS)
    by_hand = np.mean(ablated[0].row("phase 1 + betas").values("loss")) - np.mean(
        ablated[0].row("phase 1").values("loss")
    )
    assert next(e for e in found if e.name == "betas").added.mean == pytest.approx(by_hand)
    text = answer(ablated[0])
    total = ablated[0].row("phase 2").differences["loss"].estimate.mean
    assert f"Of the {total:+.3f} nats" in text and "(it leaves 50% of the updates)" in text


def test_a_tuned_arm_keeps_the_proportion_of_its_rates(tmp_path, monkeypatch):
    """The losses are made up: each arm is the better the lower its rate."""

    def trained(wanted, store, jobs):
        for cell in wanted:
            optimizer = cell.arm.phase.optimizer
            loss = optimizer.learning_rate + (optimizer.rest_learning_rate or 0)
            yield cell, {"loss": loss, "accuracy": 0.0, "floor": None, "ceiling": None}

    monkeypatch.setattr(workers, "run_all", trained)
    two_rates = override(PHASES[3], {"optimizer.rest_learning_rate": 0.05})
    config = StudyConfig([Arm("one", PHASE_1), Arm("two", two_rates)], [SETTING], [0], tune=True)
    one, two = Study(config, tmp_path).run()[0].rows
    assert one.arm.phase.optimizer.learning_rate == 3e-4 and set(one.tuned) == {3e-4, 1e-3, 3e-3}
    rates = two.arm.phase.optimizer
    assert (rates.learning_rate, rates.rest_learning_rate) == pytest.approx((0.006, 0.015))


def test_encoder_and_decoder_are_not_compared(store):
    config = StudyConfig(arms.archs(["decoder", "encoder"]), [SETTING], [0])
    table = Study(config, store).run()[0]
    assert not table.rows[1].differences
    assert "cannot be compared" in answer(table) and "not comparable" in markdown([table])
    of_the_ceiling = [
        document.cells(table, row)[document.COLUMNS.index("of the ceiling")] for row in table.rows
    ]
    assert of_the_ceiling[0].endswith("%") and of_the_ceiling[1] == "?"  # it is that of next tokens


@pytest.mark.long
def test_every_figure_is_drawn(ablated, store):
    assert {"differences"} <= set(figures(ablated))
    larger = Setting(DataConfig(stories=48, validation=8), *list(vars(SETTING).values())[1:])
    drawn = figures(Study(StudyConfig(arms.phases(), [SETTING, larger], [0, 1]), store).run())
    assert {"curves-1", "curves-2", "differences-1", "differences-2", "scale-debug-tokens"} == set(drawn)
    end = drawn["curves-1"].axes[0].lines[0].get_ydata()[-1]
    assert end == pytest.approx(np.mean(ablated[0].rows[0].values("loss")))


@pytest.mark.parametrize("room", [100, 120, 140, 170])
def test_where_room_is_scarce_columns_are_left_out_and_none_is_broken(tables, room):
    out = Console(width=room, file=io.StringIO())
    out.print(_grid(tables[0], room))
    head, *rows = [line for line in out.file.getvalue().splitlines() if line[0] in "┃│"]
    assert len(rows) == len(tables[0].rows) and "…" not in "".join(rows)
    names = [name.strip() for name in head.strip("┃").split("┃")]
    gone = [name for name in document.COLUMNS if name not in names]
    assert names == [name for name in document.COLUMNS if name in names]
    assert sorted(gone) == sorted(_LEFT_OUT[: len(gone)]) and (gone == [] if room == 170 else gone)


def test_the_command_writes_its_results(tmp_path, store):
    given = {"stories": 24, "validation": 8, "sizes": "debug", "epochs": 1, "context": 64, "seeds": 2}
    options = ["compare", *(text for name, value in given.items() for text in (f"--{name}", str(value)))]
    places = ["--store", store, "--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md"]
    done = CliRunner().invoke(main, [*options, *map(str, places)])
    assert done.exit_code == 0, done.output
    assert "phase 2 ends" in done.output
    assert [arm["name"] for arm in json.loads((tmp_path / "r.json").read_text())["settings"][0]["arms"]] == [
        "phase 1", "phase 2", "phase 3"]  # fmt: skip
    assert "| phase 3 |" in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--story"], "--story has arms, sizes and stories of its own: leave out --stories."),
        (["--ablate", "--schedules"], "each choose the arms"),
        (["--sizes", "huge"], "size must be one of"),
        (["--scale", "ten"], "not a valid integer"),
        (["--arch", "decoder,loop"], "arch must be one of"),
        (["--arch", "decoder"], "at least 2 arms; got decoder"),
        (["--arms", "none.json"], "none.json cannot be read: No such file or directory; give arms as {"),
        (["--data", "none"], "none does not exist"),
        (["--json", f"{__file__}/r.json"], "cannot write to"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_announced(tmp_path, options, message):
    done = CliRunner().invoke(main, ["compare", "--stories", "9", *options, "--store", str(tmp_path / "s")])
    assert done.exit_code == 2 and message in done.output and "Traceback" not in done.output
    assert "trainings:" not in done.output


def test_a_store_that_cannot_be_written_is_refused_at_once():
    done = CliRunner().invoke(main, ["compare", "--stories", "9", "--store", __file__])
    assert done.exit_code == 2 and "cannot write to" in done.output and "trainings:" not in done.output


@pytest.mark.long
@pytest.mark.parametrize(
    "jobs, delay",
    [
        ("1", 0),
        ("2", 0),
        ("2", 0.3),
    ],
)
def test_a_comparison_that_is_stopped_continues(tmp_path, jobs, delay):
    given = "compare --stories 24 --validation 8 --sizes debug --epochs 2 --context 64 --seeds 2"
    command = [
        sys.executable,
        "-m",
        "mlxstories.cli",
        *given.split(),
        "--jobs",
        jobs,
        "--store",
        tmp_path / "s",
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    announced, first = process.stderr.readline(), process.stderr.readline()
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert announced.startswith("6 trainings: phase 1, phase 2, phase 3; 2 seeds.")
    assert "1 of 6" in first and "left" in first
    assert process.returncode == 130 and "continues" in errors and "Traceback" not in errors
    finished = {path.parent: path.stat().st_mtime_ns for path in tmp_path.glob("s/*/cell.json")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert finished and all((p / "cell.json").stat().st_mtime_ns == t for p, t in finished.items())


@pytest.mark.long
def test_no_training_starts_once_nobody_takes_the_results(tmp_path):
    wanted = [Cell(Arm("1", PHASE_1), SETTING, seed, 20) for seed in range(8)]
    results = workers.run_all(wanted, tmp_path, jobs=2)
    next(results)
    results.close()
    assert len(list(tmp_path.glob("*/cell.json"))) <= 4
