"""Figures from run files: what is drawn, and what is refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.plots.curves import figures, smooth
from mlxstories.plots.runs import read_curves, short
from mlxstories.plots.style import COLOURS, save
from mlxstories.plots.sweep import sweep


def texts(figure) -> str:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_xlabel(), axes.get_ylabel()]
        if axes.get_legend():
            found += [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join(found)


def lines_with(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


def test_figures_show_the_measurements(make_run):
    run = make_run()
    (curves,) = read_curves([run])
    drawn = figures([curves])
    assert list(drawn) == ["loss", "accuracy", "learning_rate", "gradient_norm"]
    val = [record for record in run.metrics() if record["split"] == "val"]
    (points,) = lines_with(drawn["loss"].axes[0], "o")
    np.testing.assert_array_equal(points.get_xdata(), [record["step"] for record in val])
    np.testing.assert_array_equal(points.get_ydata(), [record["loss"] for record in val])  # unsmoothed
    (points,) = lines_with(drawn["accuracy"].axes[0], "o")
    np.testing.assert_array_equal(points.get_xdata(), [record["epoch"] for record in val])
    assert "seed 0, 2.46 M tokens, 600 updates, 4.18 M parameters" in texts(drawn["loss"])
    assert "loss (nats per token)" in texts(drawn["loss"]) and "floor 1.900" in texts(drawn["loss"])
    assert "ceiling 70.6%" in texts(drawn["accuracy"])
    assert "blocks.3" in texts(drawn["gradient_norm"])


def test_several_runs_in_one_figure(make_run):
    runs = [make_run("a"), make_run("b", floor=(1.5, None)), make_run("c", floor=None, blocks=False)]
    drawn = figures(read_curves(runs))
    legend = texts(drawn["loss"])
    assert all(name in legend for name in ("a: seed 0", "floor 1.900", "floor 1.500"))
    assert len(lines_with(drawn["loss"].axes[0], "o")) == 3
    with pytest.raises(StoriesError, match="at most 7 runs"):
        figures(read_curves([runs[0]] * (len(COLOURS) + 1)))


def test_runs_of_the_same_name_are_told_apart(make_run, tmp_path):
    one, other = make_run("a/run"), make_run("b/run")
    labels = [curves.label for curves in read_curves([one, other])]
    assert labels == [str(one.path), str(other.path)]


def test_gradients_that_vanish_are_measured_against_the_line(make_run):
    run = make_run()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        record |= {"grad_norm": 1e-5} if record["split"] == "train" else {}
    (run.path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "vanished below 1e-6" in texts(figures(read_curves([run]))["gradient_norm"])
    assert "vanished" not in texts(figures(read_curves([make_run("alive")]))["gradient_norm"])


def test_command_writes_every_figure(make_run, tmp_path):
    make_run()
    options = ["--runs", str(tmp_path / "runs"), "--export", str(tmp_path / "out"), "--format", "svg"]
    result = CliRunner().invoke(main, ["plot", *options])
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "out").iterdir())
    assert [file.stem for file in files] == ["accuracy", "gradient_norm", "learning_rate", "loss"]
    assert result.output.split() == [
        str(tmp_path / "out" / f"{name}.svg")
        for name in ("loss", "accuracy", "learning_rate", "gradient_norm")
    ]
    assert all(file.read_bytes().startswith(b"<?xml") for file in files)
    again = CliRunner().invoke(main, ["plot", *options])
    assert again.output.count(" (replaced)") == len(files)


def test_the_same_run_gives_the_same_bytes_in_every_format(make_run, tmp_path):
    curves = read_curves([make_run()])
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for name in ("one", "two"):
        figure = figures(curves)["loss"]
        for suffix in magic:
            save(figure, tmp_path / name / f"loss.{suffix}")
    for suffix, begin in magic.items():
        one, two = ((tmp_path / name / f"loss.{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two and one.startswith(begin)
    assert struct.unpack(">I", (tmp_path / "one" / "loss.png").read_bytes()[16:20]) == (1600,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "metrics.jsonl: No such file"),
        ("", "no measurements yet"),
        (
            '{"split": "val", "step": 0, "epoch": 0, "tokens": 0, "loss": 7, "accuracy": 0}',
            "no measurements yet",
        ),
        ('{"split": "train", "step": 1}', "has a line without 'epoch'"),
        ('["train"]\n', "line 1 is not a measurement"),
        ('{"split": "train", "st\n{}\n', "line 1 is not JSON"),
    ],
)
def test_damaged_metrics_are_refused_and_nothing_is_drawn(make_run, tmp_path, content, message):
    run = make_run()
    (run.path / "metrics.jsonl").unlink()
    if content is not None:
        (run.path / "metrics.jsonl").write_text(content)
    result = CliRunner().invoke(main, ["plot", str(run.path), "--export", str(tmp_path / "out")])
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()


def test_metrics_of_the_wrong_type_are_refused(make_run):
    run = make_run()
    text = (run.path / "metrics.jsonl").read_text()
    (run.path / "metrics.jsonl").write_text(
        text.replace('"split": "val", "loss": ', '"split": "val", "loss": "x", "y": ')
    )
    with pytest.raises(StoriesError, match="value of the wrong type"):
        read_curves([run])


def test_a_last_line_cut_short_is_left_out(make_run):
    run = make_run()
    path = run.path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert read_curves([run])[0].train["step"][-1] == 600


def test_unwritable_output_and_unknown_run(make_run, tmp_path):
    run = make_run()
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["plot", str(run.path), "--export", str(tmp_path / "file" / "out")])
    assert result.exit_code == 2 and "cannot write" in result.output
    result = CliRunner().invoke(main, ["plot", "nothing", "--runs", str(tmp_path)])
    assert result.exit_code == 2 and "nothing is not a run" in result.output


def test_a_loss_that_is_not_finite_does_not_stop_the_drawing(make_run, tmp_path):
    run = make_run(steps=50)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(
            json.dumps({**json.loads((run.path / "metrics.jsonl").read_text().splitlines()[2]), "loss": None})
        )
    for name, figure in figures(read_curves([run])).items():
        save(figure, tmp_path / f"{name}.png")


def test_a_sweep_marks_the_own_rate_and_what_diverged():
    figure = sweep([(1e-3, 0.9), (1e-5, 0.02), (1e-1, float("nan"))], own=1e-3, story=True)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1e-5, 1e-3])
    assert (
        "diverged" in texts(figure) and "the story's" in texts(figure) and "own rate 0.001" in texts(figure)
    )
    with pytest.raises(StoriesError, match="without a single"):
        sweep([])


def test_smooth_keeps_constants_and_ends():
    np.testing.assert_allclose(smooth(np.full(200, 3.0)), 3.0)
    values = np.random.default_rng(0).standard_normal(400)
    smoothed = smooth(values)
    assert len(smoothed) == 400 and smoothed[0] == values[0]
    assert smoothed[200] == pytest.approx(values[195:206].mean())


def test_counts_are_shortened_to_three_digits():
    assert [short(n) for n in (950, 12_345, 4_180_000, 2e9)] == ["950", "12.3 K", "4.18 M", "2 G"]


def test_an_unknown_format_is_refused(make_run, tmp_path):
    with pytest.raises(StoriesError, match=r"must end in one of \.png"):
        save(figures(read_curves([make_run()]))["loss"], tmp_path / "loss.bmp")
