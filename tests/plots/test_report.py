"""The report: sound and accessible HTML that shows what was measured, and in which nothing of a run is alive."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlxstories.cli import main
from mlxstories.data import source
from mlxstories.data.dataset import DataConfig, load_dataset
from mlxstories.data.packing import Documents
from mlxstories.errors import StoriesError
from mlxstories.generation.story_text import ended
from mlxstories.model import ModelConfig
from mlxstories.plots.report import page
from mlxstories.plots.report.palette import COLOURS, GRAPHIC, TEXT, contrast, legible
from mlxstories.plots.report.phrases import chance
from mlxstories.plots.report.repeats import arms
from mlxstories.plots.report.stories import Story, Token, stories
from mlxstories.plots.report.summary import read_summaries
from mlxstories.plots.report.verdict import verdict
from mlxstories.runs.checkpoints import load_model
from mlxstories.training import experiment
from mlxstories.training.config import TrainingConfig
from mlxstories.training.evaluation import Evaluator
from mlxstories.training.phases import PHASE_1

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
VALIDATION = (
    '{"step": 0, "epoch": 0, "tokens": 0, "split": "val", "loss": 2, "accuracy": 0, "bits_per_character": %s}'
)


class Page(HTMLParser):
    """Elements with their attributes and the text in them, void elements known."""

    VOID = ("meta", "img", "br", "link", "use", "path", "rect")

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text: dict[int, str] = {}
        self.open: list[int] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.text[len(self.elements) - 1] = ""
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.elements[self.open[-1]][0] == tag, f"</{tag}> closes {self.elements[self.open[-1]]}"
            self.open.pop()

    def handle_data(self, data):
        for index in self.open:
            self.text[index] += data

    def all(self, *tags):
        return [
            (self.elements[i][1], self.text.get(i, "")) for i, e in enumerate(self.elements) if e[0] in tags
        ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that really trained, on built-in stories."""
    dataset = load_dataset(DataConfig(stories=60, validation=12))
    shape = ModelConfig(dataset.tokenizer.vocab_size, dim=32, layers=1, heads=2, context=192, separator=0)
    config = TrainingConfig(steps=30, log_every=5, evaluations=3, seed=3)
    path = tmp_path_factory.mktemp("runs") / "trained"
    trainer = experiment.start(
        path, dataset, shape, PHASE_1, config, lambda record: None, command="mlxstories train <x>"
    )
    experiment.finish(trainer, trainer.train())
    return trainer.run


@pytest.fixture(scope="module")
def told(trained):
    return stories(trained, 2)


@pytest.fixture(scope="module")
def html(trained, told):
    (summary,) = read_summaries([trained])
    return page.of_runs([summary], {"trained": told})


def spaced(html):
    """The page's text, with a space between what stands in different cells."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def hostile(run, *, name=EVIL):
    """The run with a name, a value and a finding that would like to be code."""
    config = run.config | {
        "phase": {"name": name},
        "data": {"source": [name]},
        "command": f"mlxstories {name}",
    }
    (run.path / "config.json").write_text(json.dumps(config))
    write_findings(run, ("overfitting", "warning", name), ("repetition-loop", "note", "x"))
    return run


def write_findings(run, *found):
    evidence = {"share": 0.123456, "names": ["a", EVIL]}
    items = [
        {"code": code, "severity": severity, "rung": "training", "message": message, "fix": "do this"}
        | {"evidence": evidence, "where": message}
        for code, severity, message in found
    ]
    (run.path / "findings.json").write_text(json.dumps(items))


def with_result(run, **changed):
    last = [record for record in run.metrics() if record["split"] == "val"][-1]
    result = {"loss": last["loss"], "accuracy": last["accuracy"], "tokens": 900, "by_kind": {}, "steps": 600,
              "trained_tokens": 2_457_600, "seconds": 75.0} | changed  # fmt: skip
    (run.path / "result.json").write_text(json.dumps(result))
    return run


def test_the_page_is_well_formed(html):
    found = Page(html)
    assert not found.open
    assert found.all("html")[0][0]["lang"] == "en"
    assert all(len(found.all(tag)) == 1 for tag in ("h1", "header", "nav", "main", "footer", "title"))
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    inner = [a["href"] for _, a in found.elements if a.get("href", "").startswith("#")]
    assert {link[1:] for link in inner} <= set(ids)
    labelled = [a["aria-labelledby"] for _, a in found.elements if "aria-labelledby" in a]
    assert labelled and set(labelled) <= set(ids)
    drawings = [attributes for attributes, _ in found.all("svg")]
    assert len(drawings) == 4 and all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in drawings)
    for attributes, _ in found.all("th"):
        assert attributes["scope"] in ("row", "col")


def test_a_finding_shows_the_code_around_its_line(make_run, tmp_path):
    run = with_result(make_run())
    (tmp_path / "train.py").write_text("first = 1\nwrong = '<b>'\nlast = 3\n")
    write_findings(run, ("exploding-gradient", "error", "the gradient grew"))
    (finding,) = json.loads((run.path / "findings.json").read_text())
    for where, lines in (({"file": str(tmp_path / "train.py"), "line": 2}, 3), ("model", 0)):
        (run.path / "findings.json").write_text(json.dumps([finding | {"where": where}]))
        html = page.of_runs(read_summaries([run]), {})
        assert html.count("<pre") == bool(lines)
        assert ("wrong = &#39;&lt;b&gt;&#39;" in html) == bool(lines)


def test_nothing_comes_from_elsewhere_and_only_its_own_script_runs(html):
    found = Page(html)
    assert not found.all("img", "link", "iframe", "object", "embed", "base", "form")
    for _, attributes in found.elements:
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
        assert all("url(#" in value or "url(" not in value for value in attributes.values() if value)
    assert "@import" not in html and "url(http" not in html
    (script,) = [text for _, text in found.all("script")]
    (policy,) = [a["content"] for a, _ in found.all("meta") if "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")


@pytest.mark.parametrize("live", [False, True])
def test_what_a_run_says_is_text(make_run, live):
    (summary,) = read_summaries([hostile(make_run("<img src=x onerror=alert(1)>&b"))])
    token = Token(EVIL, 0.5, 1.0, EVIL)
    found = Page(page.of_runs([summary], {summary.label: [Story(EVIL, [token], 1.0, None)]}, live=live))
    assert len(found.all("script")) == 1 and not found.all("img")
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    shown = found.all("main")[0][1]
    assert shown.count("<script>alert(1)</script>") >= 5
    assert any(EVIL in attributes.get("data-tip", "") for _, attributes in found.elements)


def test_colours_keep_their_contrast():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the known least grey on white
    for scheme in (0, 1):
        colour = {name: pair[scheme] for name, pair in COLOURS.items()}
        for text in ("ink", "muted", "link", "good", "warning", "error"):
            assert contrast(colour[text], colour["paper"]) >= TEXT, text
        for ground in ("panel", "sure-1", "sure-2", "sure-3", "sure-4"):
            assert contrast(colour["ink"], colour[ground]) >= 7, ground
        grounds = [contrast(colour["paper"], colour[f"sure-{i}"]) for i in (1, 2, 3, 4)]
        assert grounds == sorted(grounds)


@given(st.integers(0, 0xFFFFFF), st.sampled_from(COLOURS["paper"]), st.sampled_from([TEXT, GRAPHIC]))
def test_any_colour_is_made_legible_and_a_legible_one_stays(number, paper, least):
    colour = f"#{number:06x}"
    found = legible(colour, paper, least)
    assert contrast(found, paper) >= least
    assert found == colour or contrast(colour, paper) < least


def test_every_colour_of_the_drawings_is_defined_for_light_and_dark(html):
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    for block in re.findall(r":root \{ (--paper.*?)\}", html):
        defined = dict(re.findall(r"--([\w-]+): (#\w+);", block))
        assert used - set(defined) <= {"sans", "serif", "mono", "measure"}
    assert len(re.findall(r":root \{ (--paper.*?)\}", html)) == 2
    drawn = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{6}\b", "".join(drawn))


def test_the_page_says_what_was_measured(html, trained):
    (summary,) = read_summaries([trained])
    result = json.loads((trained.path / "result.json").read_text())
    text = " ".join(Page(html).all("body")[0][1].split())
    assert verdict(summary).text.split(": ", 1)[1] in text
    for number in (f"{result['loss']:.3f}", f"floor {result['floor']:.3f}", f"{result['accuracy']:.1%}"):
        assert number in text
    for row in result["by_kind"].values():
        assert f"{row['tokens']:,}" in text and f"{row['loss']:.3f}" in text
    assert "mlxstories train <x>" in text and "optimizer.learning_rate" in text
    held_out = [record for record in trained.metrics() if record["split"] == "val"]
    assert held_out
    for record in held_out:
        assert f"{record['loss']:.4f} {record['bits_per_character']:.3f} {record['accuracy']:.2%}" in spaced(
            html
        )
    gaps = page._gaps(summary)
    assert sum(gaps.values()) == pytest.approx(1)
    whole = sum(r["tokens"] * (r["loss"] - r["floor"]) for r in result["by_kind"].values())
    assert whole / result["tokens"] == pytest.approx(result["loss"] - result["floor"], rel=0.05)


def test_stories_are_those_of_the_run_with_the_probabilities_of_its_model(trained, told):
    one, two, held_out = told
    texts = ["".join(token.text for token in story.tokens).replace(" ∎", "") for story in told]
    samples = json.loads((trained.path / "result.json").read_text())["samples"]
    assert texts[:2] == [ended(sample) for sample in samples[:2]]
    assert one.left is not None and two.known  # so little training tells no story of the source
    (true,) = source.stories(1, "0 validation")
    assert texts[2].replace("“", '"').replace("”", '"') == true.text
    assert [token.kind for token in held_out.tokens] == [source.KINDS[kind] for kind in true.kind]
    assert held_out.left is None
    model, tokenizer, _ = load_model(trained, "last")
    assert [story.title for story in stories(trained, 0)] == ["A held-out story, read by it"]
    alone = Documents.of([np.array(tokenizer.encode(true.text))])
    assert held_out.loss == pytest.approx(Evaluator(model)(alone).loss, rel=1e-5)


def test_tokens_are_sorted_by_surprise():
    found = [Token("a", p, 0, None).surprise for p in (1.0, 0.9, 0.89, 0.5, 0.2, 0.05, 0.049)]
    assert found == [0, 0, 1, 1, 2, 3, 4]
    assert [chance(p) for p in (0.834, 0.0123, 0.0012, 1e-5)] == ["83%", "1.2%", "0.12%", "below 0.01%"]


@pytest.mark.parametrize(
    ("found", "result", "status", "said"),
    [
        ([], {}, "good", "Healthy: held-out loss 1.919 nats per token, 1.0% above the floor of 1.900"),
        ([], {"loss": 1.85}, "error", "below the floor, which no honest model can reach"),
        ([], {"loss": 9.0}, "error", "nothing better than the untrained model's 7.919 nats"),
        ([("overfitting", "warning", "m")], {}, "warning", "A warning: overfitting: m. Held-out loss"),
        ([("repetition-loop", "note", "m")], {}, "good", "99.1% of what is possible."),
        (
            [("overfitting", "error", "m"), ("not-finite", "error", "n")],
            {},
            "error",
            "Not healthy: not-finite: n. Held-out loss",  # the cause, its consequence folded under it
        ),
        (
            [],
            {"floor": None, "baselines": {"frequencies": 5.0, "pairs": 1.8}},
            "warning",
            "Not trained enough: counting",
        ),
        (
            [],
            {"floor": None, "baselines": {"frequencies": 5.0, "pairs": 2.0}},
            "good",
            "token pairs alone reach 2.000",
        ),
        ([], None, "open", "Unfinished: 600 of 800 updates done; held-out loss"),
    ],
)
def test_the_verdict_says_the_worst_first(make_run, found, result, status, said):
    run = make_run()
    config = run.config | {"training": {"epochs": 4, "steps": None}}
    (run.path / "config.json").write_text(json.dumps(config))
    write_findings(run, *found)
    if result is not None:
        with_result(run, **result)
    (summary,) = read_summaries([run])
    assert verdict(summary).status == status and said in verdict(summary).text


def test_where_the_epoch_still_reads_zero_the_plan_is_not_known(make_run):
    """Four digits of it are written: on millions of stories the first lines are of epoch 0.0."""
    run = make_run(steps=20, per_epoch=10**7)
    (run.path / "config.json").write_text(json.dumps(run.config | {"training": {"epochs": 1}}))
    assert "Unfinished: 20 updates done" in verdict(read_summaries([run])[0]).text


@pytest.mark.parametrize(
    ("after", "needed"),
    [
        ([], "better: more epochs or more text would help"),
        ([{"step": 700, "loss": 1.99}], "better: more text would help"),  # it went on, and became no better
    ],
)
def test_more_epochs_are_named_where_the_last_validation_was_the_best(make_run, after, needed):
    run = make_run()
    (validation,) = [record for record in run.metrics() if record["split"] == "val"][-1:]
    for changes in after:
        run.append(validation | changes)
    result = {"loss": validation["loss"], "steps": 700 if after else validation["step"]}
    with_result(run, floor=None, baselines={"frequencies": 5.0, "pairs": 1.8}, **result)
    assert needed in verdict(read_summaries([run])[0]).text


def test_a_run_that_was_repaired_is_said_to_be(make_run):
    run = with_result(make_run())
    write_findings(run, ("exploding-gradient", "error", "the gradient grew"))
    assert verdict(read_summaries([run])[0]).word == "Not healthy"
    position = {"step": 300, "epoch": 1.5, "tokens": 300 * 4096}
    run.append(position | {"split": "repair", "code": "exploding-gradient"})
    (summary,) = read_summaries([run])
    assert verdict(summary).text.startswith(
        "Repaired: exploding-gradient: the gradient grew; do this. Held-out"
    )
    text = page.of_runs([summary], {})
    assert "repaired: exploding-gradient" in text


def test_a_run_without_a_floor_or_a_measurement(make_run):
    run = with_result(make_run(floor=None))
    assert "no floor is known" in verdict(read_summaries([run])[0]).text
    begun = make_run("begun")
    (begun.path / "metrics.jsonl").write_text("")
    (summary,) = read_summaries([begun])
    text = Page(page.of_runs([summary], {"begun": "No stories: none."})).all("main")[0][1]
    assert "no update has been measured yet" in text and "No training measurements yet" in text


def test_runs_that_differ_in_their_seed_are_one_arm_with_an_interval(make_run):
    runs = [make_run(f"a{seed}", seed=seed, floor=(1.9 + seed / 100, 0.7)) for seed in (0, 1, 2)]
    runs += [make_run(f"b{seed}", seed=seed, floor=(2.0 + seed**2 / 100, 0.7)) for seed in (0, 1, 2)]
    runs.append(make_run("other"))
    for run in runs:
        data = {"source": ["x.txt"]} if run.path.name == "other" else {"source": "stories"}
        rate = 0.1 if run.path.name.startswith("b") else 0.2
        config = run.config | {"data": data, "fingerprint": run.path.name, "phase": {"rate": rate}}
        (run.path / "config.json").write_text(json.dumps(config))
    summaries = read_summaries(runs)
    first, second, other = arms(summaries)
    assert [first.seeds, second.seeds, other.seeds] == [[0, 1, 2], [0, 1, 2], [0]]
    losses = [np.array([summary.scores.loss for summary in arm.summaries]) for arm in (first, second)]
    low, high = stats.t.interval(0.95, 2, losses[0].mean(), stats.sem(losses[0]))
    assert (first.loss.low, first.loss.high) == pytest.approx((low, high))
    test = stats.ttest_rel(losses[1], losses[0])
    assert second.difference.p_value == pytest.approx(test.pvalue)
    assert second.difference.verdict == ("worse" if test.pvalue < 0.05 else "undecided")
    assert second.differs == {"phase.rate": (0.1, 0.2)}
    assert not other.comparable and other.difference is None
    text = " ".join(Page(page.of_runs(summaries, {})).all("main")[0][1].split())
    assert f"{first.loss.mean:.3f} ± {first.loss.half:.3f}" in text
    assert "b0 and 2 more differs from a0 and 2 more in phase.rate 0.1 for 0.2." in text
    assert "not comparable: other held-out stories" in text


def test_parts_of_the_model_that_the_phase_or_an_option_named_are_the_same_recipe(make_run):
    parts = {"qk_norm": True, "mixing": 4, "feed_forward": "relu2"}
    runs = [make_run("record", seed=0), make_run("by hand", seed=1)]
    for run, phase in zip(runs, (parts, dict.fromkeys(parts)), strict=True):
        config = run.config | {"model": parts, "phase": {"name": run.path.name, **phase}}
        (run.path / "config.json").write_text(json.dumps(config))
    (arm,) = arms(read_summaries(runs))
    assert arm.seeds == [0, 1]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("findings.json", "{}", "not a list of findings"),
        ("findings.json", '[{"code": "x"}]', "findings.json"),
        (
            "findings.json",
            '[{"code": "nonsense", "severity": "error", "rung": "r", "message": "m"}]',
            "no check of mlxstories finds",
        ),
        ("findings.json", "[", "cannot be read as JSON"),
        ("result.json", '{"loss": 1}', "it is damaged"),
        ("result.json", '{"loss": "x", "accuracy": 1}', "it is damaged"),
        ("result.json", "[]", "it is damaged"),
        ("metrics.jsonl", VALIDATION % "[]", "it is damaged"),
        ("metrics.jsonl", VALIDATION % '"2.1"', "it is damaged"),
    ],
)
def test_damaged_files_are_one_line_and_exit_code_2(make_run, tmp_path, file, content, message):
    run = make_run()
    (run.path / file).write_text(content)
    result = CliRunner().invoke(main, ["report", str(run.path), "--to", str(tmp_path / "out.html")])
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out.html").exists()


def test_command_writes_one_file(make_run, tmp_path):
    run = with_result(make_run())
    result = CliRunner().invoke(main, ["report", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        f"phase1-base: {verdict(read_summaries([run])[0]).text}",
        str(run.path / "report.html"),
    ]
    assert "No stories:" in (run.path / "report.html").read_text()
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["report", str(run.path), "--to", str(tmp_path / "file" / "x.html")])
    assert result.exit_code == 2 and "cannot write" in result.output


def test_accounts_refuse_what_plots_refuse(make_run):
    run = make_run()
    (run.path / "metrics.jsonl").write_text('{"split": "train", "step": 1}\n')
    with pytest.raises(StoriesError, match="has a line without"):
        read_summaries([run])
