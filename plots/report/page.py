"""The report as one HTML file that needs nothing else: template, style, script and drawings are all inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mlxstories.comparison.conclusion import answer
from mlxstories.comparison.document import COLUMNS, cells, differing, title
from mlxstories.comparison.study import Table
from mlxstories.plots.report import figures, palette, phrases
from mlxstories.plots.report.repeats import arms
from mlxstories.plots.report.stories import Story
from mlxstories.plots.report.summary import RunSummary
from mlxstories.plots.report.svg import Drawing
from mlxstories.plots.report.verdict import capital, verdict
from mlxstories.storage.serialize import dotted

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {
    "choice": "one of several words may follow",
    "recall": "a word told earlier must return",
    "fixed": "only one word may follow",
}


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own; ``digest`` tells whether it has changed."""

    id: str
    heading: str
    html: Markup

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.html.encode()).hexdigest()[:16]


def of_runs(
    summaries: Sequence[RunSummary], told: Mapping[str, list[Story] | str], *, live: bool = False
) -> str:
    """The report on runs, the verdict first.

    Args:
        summaries: one or several, at most as many as can be told apart in a figure.
        told: by label the stories of a run, or in a sentence why there are none.
        live: the page asks its server for what has changed.

    Raises:
        StoriesError: too many runs.
    """
    several = len(summaries) > 1
    curves = [summary.curves for summary in summaries if summary.curves is not None]
    drawings = figures.of_runs(curves) if curves else []
    judged = [{"summary": summary, "verdict": verdict(summary)} for summary in summaries]
    sections = [_section("verdict", "Verdict", summaries=judged, gaps=_gaps(summaries[0]))]
    if several and (found := arms(summaries)):
        sections.append(_section("repeats", "Comparison", arms=found))
    known = any(story.known for stories in told.values() if not isinstance(stories, str) for story in stories)
    level = 4 if several else 3
    sections += [
        _section("curves", "Curves", drawings=drawings, curves=curves),
        _section("findings", "Findings", summaries=summaries, level=level),
        _section("stories", "Stories", runs=list(told.items()), known=known, level=level),
        _section(
            "configuration", "Configuration", labels=[a.label for a in summaries], groups=_groups(summaries)
        ),
        _section("reproduce", "How to reproduce", commands=[_command(summary) for summary in summaries]),
    ]
    name = ", ".join(summary.label for summary in summaries)
    subtitle = None if several else _subtitle(summaries[0])
    return _page(name, "watch" if live else "report", subtitle, sections, drawings, live)


def of_tables(tables: Sequence[Table], command: str | None) -> str:
    """The report on a comparison: for each setting the answer, the table and the figures."""
    drawn = figures.of_tables(tables)
    sections = []
    for number, table in enumerate(tables, 1):
        mark = f"-{number}" if len(tables) > 1 else ""
        own = [drawn[name + mark] for name in ("curves", "differences", "rates") if name + mark in drawn]
        sections.append(
            _section(
                "setting",
                capital(title(table)),
                identity=f"setting-{number}",
                answer=answer(table),
                seeds=[result["seed"] for result in table.rows[0].results],
                columns=COLUMNS,
                rows=[cells(table, row) for row in table.rows],
                differing=differing(table),
                drawings=own,
            )
        )
    scales = [drawing for name, drawing in drawn.items() if name.startswith("scale")]
    if scales:
        sections.append(_section("figures", "Scale", identity="scale", drawings=scales))
    sections.append(_section("reproduce", "How to reproduce", commands=[("the comparison", command, None)]))
    names = list(dict.fromkeys(row.arm.name for table in tables for row in table.rows))
    return _page("Comparison", "report", ", ".join(names), sections, list(drawn.values()), False)


def _section(template: str, heading: str, *, identity: str | None = None, **content: Any) -> Section:
    identity = identity or template
    context = {"id": identity, "heading": heading, **content}
    html = _ENVIRONMENT.get_template(f"{template}.html.j2").render(section=context)
    return Section(identity, heading, Markup(html))


def _page(
    name: str, kind: str, subtitle: str | None, sections: list[Section], drawings: list[Drawing], live: bool
) -> str:
    scripts = ("report.js", "live.js") if live else ("report.js",)
    script = "\n".join((TEMPLATES / file).read_text(encoding="utf-8") for file in scripts)
    drawn = {colour for drawing in drawings for colour in drawing.colours}
    return _ENVIRONMENT.get_template("page.html.j2").render(
        page={"title": name, "kind": kind, "subtitle": subtitle, "sections": sections},
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        policy=_policy(script, live),
        colours=palette.style(drawn),
        live=live,
        version=version("mlxstories"),
    )


def _policy(script: str, live: bool) -> str:
    """What the page may do: run its own script, and nothing from anywhere else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*rules, "connect-src 'self'"] if live else rules)


def _gaps(summary: RunSummary) -> dict[str, float | None]:
    """For each kind of token its part in the distance between loss and floor."""
    nats = {
        kind: None if row.floor is None or not row.tokens else row.tokens * (row.loss - row.floor)
        for kind, row in summary.by_kind.items()
    }
    total = None if None in nats.values() else sum(nats.values())
    return {kind: part / total if total and total > 0 else None for kind, part in nats.items()}


def _subtitle(summary: RunSummary) -> str:
    config = summary.config
    data = config.get("data") or {}
    source = data.get("source", "stories of unknown source")
    files = [source] if isinstance(source, str) else [Path(file).name for file in source]
    stories = "built-in stories" if source == "stories" else ", ".join(files)
    phase = (config.get("phase") or {}).get("name", "unknown phase")
    parameters = config.get("parameters")
    facts = [
        phase,
        f"{phrases.short(parameters)} parameters" if parameters else None,
        stories,
        f"seed {config.get('seed', '?')}",
    ]
    return " · ".join(fact for fact in facts if fact)


def _groups(summaries: Sequence[RunSummary]) -> dict[str, list[tuple[str, list[str]]]]:
    """By part of the configuration every field and its value in each run; what is in no part is the run's own."""
    found = [dict(dotted(summary.config)) for summary in summaries]
    groups: dict[str, list] = {}
    for path in dict.fromkeys(path for one in found for path in one):
        if path not in ("format", "name", "command"):
            part, _, field = path.partition(".")
            values = [phrases.value(one.get(path)) for one in found]
            groups.setdefault(part if field else "run", []).append((field or part, values))
    return groups


def _command(summary: RunSummary) -> tuple[str, str | None, str | None]:
    versions = summary.config.get("versions") or {}
    used = ", ".join(f"{name} {number}" for name, number in versions.items())
    return summary.label, summary.config.get("command"), f"With {used}." if used else None


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= phrases.FILTERS
    made.filters["apply"] = lambda value, name: phrases.FILTERS[name](value)
    made.globals["kinds"] = KINDS
    return made


_ENVIRONMENT = _environment()
