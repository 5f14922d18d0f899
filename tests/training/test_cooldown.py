"""Where validation has stopped improving at the full rate, a run goes into its cool-down from its best weights."""

import math
import os
import signal

import pytest
from mlx.utils import tree_flatten

from mlxstories.cli.training_screen import TrainingScreen
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.model import ModelConfig, build_model
from mlxstories.optim import ScheduleConfig, build_optimizer
from mlxstories.optim.schedules import wsd
from mlxstories.plots.report import page
from mlxstories.plots.report.summary import read_summaries
from mlxstories.runs import checkpoints
from mlxstories.runs.checkpoints import load_model
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.cooldown import Cooldown, early_cooldown
from mlxstories.training.evaluation import Evaluator
from mlxstories.training.losses import objective
from mlxstories.training.phases import PHASES, override
from mlxstories.training.step import TrainStep
from mlxstories.training.stream import Stream

RATE = 5e-3
PHASE = override(
    PHASES[1],
    {
        "optimizer.learning_rate": RATE,
        "schedule.name": "wsd",
        "schedule.warmup": 4,
        "schedule.cooldown": 0.4,
    },
)
TRAINING = {"steps": 200, "evaluations": 100, "log_every": 1, "stop_after": 3, "keep": 100}
WSD = ScheduleConfig("wsd", warmup=0.02, cooldown=0.3)


@pytest.mark.parametrize(
    "schedule, total, step, best, found",
    [
        (WSD, 1008, 693, 441, Cooldown(693, 441, 189)),  # 441 are 70 % of 630
        (WSD, 1000, 800, 699, None),  # to 1,099 of 1,000
        (WSD, 1000, 999, 700, None),  # of the planned cool-down, from 700 on
        (WSD, 1000, 60, 19, None),  # of 20 of warmup
        (WSD, 1000, 60, 20, Cooldown(60, 20, 9)),
        (ScheduleConfig("wsd", warmup=0, cooldown=0.3), 1000, 60, 0, None),  # as it began
        (ScheduleConfig("wsd", warmup=0, cooldown=1.0), 1000, 60, 20, None),  # which cools down all the time
        (ScheduleConfig("warmup_cosine"), 1000, 600, 400, None),
        (ScheduleConfig("constant"), 1000, 600, 400, None),
    ],
)
def test_the_rest_is_that_of_a_run_whose_stable_phase_ended_with_the_best_weights(
    schedule, total, step, best, found
):
    assert early_cooldown(schedule, total, step, best) == found


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(DataConfig(stories=6, validation=12))


def trainer_for(dataset, path, report=lambda record: None, **changes):
    """Six stories learnt by heart: soon every update makes the held-out ones worse."""
    shape = ModelConfig(dataset.tokenizer.vocab_size, dim=32, layers=2, heads=2, separator=0, dropout=0.1)
    return experiment.start(path, dataset, shape, PHASE, TrainingConfig(**{**TRAINING, **changes}), report)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    trainer = trainer_for(dataset, tmp_path_factory.mktemp("whole") / "run")
    trained = trainer.train()
    (line,) = (record for record in trainer.run.metrics() if record["split"] == "cooldown")
    return trainer, line, experiment.finish(trainer, trained)


def losses(run, split):
    return {r["step"]: r["loss"] for r in run.metrics() if r["split"] == split}


def test_it_begins_three_validations_after_the_best_and_is_made_to_its_end(finished):
    trainer, line, result = finished
    measured = losses(trainer.run, "val")
    until = {step: loss for step, loss in measured.items() if step <= line["step"]}
    assert min(until, key=until.get) == line["weights_of"] == line["step"] - 3 * 2
    assert max(measured) == line["step"] + line["updates"] == result["steps"] == trainer.total_steps < 200
    # no longer patient
    assert line["updates"] == round(line["weights_of"] / 0.6) - line["weights_of"] > 3 * 2
    assert result["cooldown"] == {
        "begins": line["step"],
        "weights_of": line["weights_of"],
        "updates": line["updates"],
    }


def test_it_goes_on_from_the_best_weights_with_the_stories_that_come_next(finished, dataset):
    """Two updates by hand: weights and moments of the best checkpoint, place and seed of the last one before."""
    trainer, line, _ = finished
    saved = {checkpoint.step: checkpoint for checkpoint in trainer.run.checkpoints()}
    place = saved[line["step"]].state["progress"]
    model = build_model(trainer.model.config)
    rate = wsd(RATE, 4, line["weights_of"] + line["updates"], line["updates"])
    optimizer = build_optimizer(PHASE.optimizer, rate)
    checkpoints.restore(saved[line["weights_of"]], model, optimizer)
    stream = Stream(dataset.train, model.config.context, trainer.config)
    stream.seek(place["epoch"], place["batch"])
    step = TrainStep(model, optimizer, objective(model.config), clip_norm=PHASE.clip_norm)
    model.train()
    for number in (line["step"], line["step"] + 1):
        step([next(stream)], number)
    checkpoints.restore(saved[line["step"] + 2], trained := build_model(model.config))
    ours, theirs = (dict(tree_flatten(m.parameters())) for m in (model, trained))
    assert all((ours[name] == theirs[name]).all().item() for name in theirs)


def test_the_best_of_the_whole_run_is_shown(finished, dataset):
    trainer, _, result = finished
    model, _, _ = load_model(trainer.run, "best")
    assert Evaluator(model)(dataset.val).loss == min(losses(trainer.run, "val").values()) == result["loss"]


def test_the_rate_falls_as_one_minus_the_root_from_the_first_update_on(finished):
    trainer, line, _ = finished
    rates = {r["step"]: r["learning_rate"] for r in trainer.run.metrics() if r["split"] == "train"}
    assert rates[line["step"]] == pytest.approx(RATE)
    for done in range(line["updates"]):
        expected = RATE * (1 - math.sqrt(done / line["updates"]))
        assert rates[line["step"] + done + 1] == pytest.approx(expected, rel=1e-5)


def test_the_report_tells_of_it(finished):
    trainer, line, _ = finished
    told = page.of_runs(read_summaries([trainer.run]), {})
    assert f"cool-down from step {line['weights_of']}" in told  # in the figures
    assert f"cooled down from the weights of step {line['weights_of']} after {line['step']} updates" in told
    (trainer.run.path / "result.json").unlink()  # as while it trains
    (summary,) = read_summaries([trainer.run])
    assert summary.total == line["step"] + line["updates"]


def test_the_terminal_tells_of_it(finished, capsys):
    trainer, line, result = finished
    show = TrainingScreen()
    show(line)
    assert show.total == trainer.total_steps
    show.result(trainer, result)
    shown = capsys.readouterr()
    assert f"back to the weights of step {line['weights_of']}, the best" in shown.err
    assert f"over {line['updates']} updates" in shown.err
    assert (
        f"Ended after {result['steps']} of 200 updates, cooled down from step {line['weights_of']}"
        in shown.out
    )


@pytest.mark.parametrize("place", ["at its beginning", pytest.param("in the middle", marks=pytest.mark.long)])
def test_interrupted_it_resumes_to_the_same_weights(finished, dataset, tmp_path, place):
    whole, line, _ = finished
    where = line["step"] + (0 if place == "at its beginning" else 3)

    def interrupt(record):
        if record["split"] == "train" and record["step"] == where:
            os.kill(os.getpid(), signal.SIGINT)

    cut = trainer_for(dataset, tmp_path / "cut", interrupt)
    assert cut.train() is None and cut.progress.step - where <= 1
    resumed = experiment.resume(cut.run, lambda record: None)
    experiment.finish(resumed, resumed.train())
    same = ("step", "split", "loss", "learning_rate", "weights_of", "updates")
    assert [[r.get(key) for key in same] for r in cut.run.metrics()] == [
        [r.get(key) for key in same] for r in whole.run.metrics()
    ]
    ours, theirs = (dict(tree_flatten((t.model.parameters(), t.optimizer.state))) for t in (resumed, whole))
    assert all((ours[name] == theirs[name]).all().item() for name in theirs)


def test_a_run_under_repair_ends_where_validation_has_stopped_improving(finished, dataset, tmp_path):
    trainer = trainer_for(dataset, tmp_path / "run", max_repairs=1)
    trainer.train()
    assert trainer.progress.step == finished[1]["step"] and trainer.progress.cooldown is None
