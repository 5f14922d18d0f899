"""A real browser at ``mlxstories watch``: pages of other origins read nothing, and what a run says stays text.

    python benchmarks/browser.py --chromium /usr/bin/chromium

The run's name, configuration, findings and stories hold markup that would set a mark on the page if it were taken for
more than text; so would what is appended while the page is open. A page of another origin asks for the report by
``fetch``, in a frame, and under a name that was made to lead to this machine (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import click
from sandbox import Sandbox

from mlxstories.plots.report.live import LiveReport
from mlxstories.plots.report.server import Server
from mlxstories.runs.directory import Run

MARK = "data-taken-for-code"
_SET = f"document.documentElement.setAttribute('{MARK}',1)"
EVIL = f"<img src=x onerror={_SET}><script>{_SET}</script>"
NAME = EVIL.partition("<script>")[0]  # no name of a directory holds a slash
ASKING = """<!doctype html><title>elsewhere</title><pre id=told></pre><iframe id=frame src="%s"></iframe><script>
const told = document.getElementById("told");
fetch("%s").then((answer) => answer.text()).then((text) => told.append("fetch read " + text.length + "; "))
  .catch((error) => told.append("fetch refused; "));
setTimeout(() => {
  try { told.append("frame read " + frame.contentDocument.body.innerHTML.length + "; "); }
  catch (error) { told.append("frame refused; "); }
}, 3000);
</script>"""


@click.command()
@click.option("--chromium", default="chromium", show_default=True, help="The browser's program.")
def main(chromium):
    """Ask, look, say."""
    with tempfile.TemporaryDirectory(prefix="browser-") as folder:
        run = hostile_run(Path(folder))
        look = functools.partial(dom, chromium, Path(folder) / "profile")
        server = Growing(0)
        server.show(LiveReport(run, 2).html())
        write_finding(run.path, f"appended {EVIL}")
        with server.running(), elsewhere(Path(folder), server.url) as other:
            rebound = server.url.replace("127.0.0.1", "evil.example")
            renamed = look(rebound, "--host-resolver-rules=MAP evil.example 127.0.0.1")
            told = look(other).partition('<pre id="told">')[2].partition("</pre>")[0]
            server.next = LiveReport(run, 2).html()
            live = look(server.url)
    checks = {
        "a page under another name is refused": "served to its own machine alone" in renamed,
        "fetch from another origin is refused": "fetch refused" in told,
        "a frame in another origin's page shows nothing": "frame refused" in told,
        "the page's own script ran, and took in what is new": ">live<" in live and "appended &lt;img" in live,
        "markup is shown as text": live.count("&lt;img src=x") >= 5,
        "markup is nothing else": f"{MARK}=" not in live.partition("<head")[0] and "<img" not in live,
    }
    for check, passed in checks.items():
        print("ok  " if passed else "FAIL", check)
    sys.exit(not all(checks.values()))


def hostile_run(folder: Path) -> Run:
    """A run that trained, all of whose words are markup."""
    path = Sandbox(folder).good
    path = path.rename(path.with_name(NAME))
    config = json.loads((path / "config.json").read_text())
    config |= {"command": EVIL, "name": EVIL}
    (path / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {
        (f"{EVIL}{index}" if index > 3 else word): index
        for word, index in tokenizer["model"]["vocab"].items()
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_finding(path, EVIL)
    return Run(path)


def write_finding(path: Path, message: str) -> None:
    finding = {"code": "overfitting", "severity": "warning", "rung": "training", "message": message}
    finding |= {"fix": message, "where": message, "evidence": {"names": [message]}}
    (path / "findings.json").write_text(json.dumps([finding]))


class Growing(Server):
    """Shows the page ``next``, once there is one, from the second request on."""

    next: str | None = None
    _asked = False

    @property
    def page(self) -> tuple[bytes, str]:
        if self.next is not None and self._asked:
            self.show(self.next)
        self._asked = self.next is not None
        return super().page


@contextlib.contextmanager
def elsewhere(folder: Path, target: str) -> Iterator[str]:
    """The address of a page of another origin that asks for ``target``."""
    place = folder / "elsewhere"
    place.mkdir()
    (place / "index.html").write_text(ASKING % (target, target))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=place))
    thread = threading.Thread(target=other.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{other.server_port}/"
    finally:
        other.shutdown()
        other.server_close()
        thread.join()


def dom(chromium: str, profile: Path, url: str, *options: str) -> str:
    """The document as the browser has it after some seconds."""
    program = shutil.which(chromium)
    if program is None:
        raise click.UsageError(f"there is no program {chromium!r}: name a Chromium by --chromium.")
    words = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
    words += ["--virtual-time-budget=12000", "--dump-dom", url]
    return subprocess.run(words, capture_output=True, text=True, timeout=180).stdout


if __name__ == "__main__":
    main()
