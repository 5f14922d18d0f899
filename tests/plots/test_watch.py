"""`mlxstories watch`: a real server asked by real clients, over real run files."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mlxstories.errors import StoriesError
from mlxstories.plots.report.live import LiveReport
from mlxstories.plots.report.server import Server


@contextlib.contextmanager
def asking(port):
    """``ask(method, path, **headers) -> (status, headers, body)``"""

    def ask(method="GET", path="/", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Host": f"127.0.0.1:{port}"} | {name.replace("_", "-"): v for name, v in headers.items()}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, body

    yield ask


@pytest.fixture
def server():
    server = Server(0)
    server.show("<p>first ∎</p>")
    with server.running():
        yield server


@pytest.fixture
def ask(server):
    with asking(int(server.url.rsplit(":", 1)[1].strip("/"))) as ask:
        yield ask


def test_the_page_is_sent_once_for_each_state(server, ask):
    status, headers, body = ask()
    assert (status, body) == (200, "<p>first ∎</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    status, _, body = ask(If_None_Match=headers["ETag"])
    assert (status, body) == (304, "")
    server.show("<p>second</p>")
    assert ask(If_None_Match=headers["ETag"])[2] == "<p>second</p>"
    status, headers, body = ask("HEAD")
    assert (status, headers["Content-Length"], body) == (200, "13", "")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_requests_in_another_name_are_refused(server, ask, host):
    port = server.url.rsplit(":", 1)[1].strip("/")
    status, _, body = ask(Host=host.format(port=port))
    assert status == 403 and "first" not in body
    assert ask(Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/config.json", 404),
        ("GET", "/../config.json", 404),
        ("GET", "/?again", 200),
        ("POST", "/", 501),
        ("PUT", "/", 501),
        ("DELETE", "/", 501),
    ],
)
def test_there_is_one_page_to_read_and_nothing_to_write(ask, method, path, status):
    assert ask(method, path)[0] == status


def test_it_listens_on_this_machine_alone_and_a_taken_port_is_said(server):
    assert server._http.server_address[0] == "127.0.0.1"
    with pytest.raises(StoriesError, match="cannot be served"):
        Server(server._http.server_port)


def test_idle_half_sent_and_endless_requests_keep_nobody_out(server, ask):
    """Hundreds of connections that never finish, and some that send without end, beside one that reads the page."""
    address = server._http.server_address
    threads = threading.active_count()
    with contextlib.ExitStack() as open_ones:
        for number in range(450):
            connection = open_ones.enter_context(socket.create_connection(address))
            with contextlib.suppress(OSError):  # cut off already, as it should be
                connection.sendall((b"", b"GET / HTTP/1.1\r\nHost: x", b"GET /" + b"a" * 100_000)[number % 3])
            if number % 50 == 0:
                assert ask()[2] == "<p>first ∎</p>"
        assert ask()[0] == 200
        assert threading.active_count() - threads <= 70
    assert ask()[0] == 200


def test_a_state_is_another_when_a_file_is(make_run):
    run = make_run()
    report = LiveReport(run, 0)
    first = report.changed()
    assert report.changed() == first
    run.append(run.metrics()[-1])
    second = report.changed()
    assert second != first
    (run.path / "checkpoints" / "step-100").mkdir(parents=True)
    assert report.changed() != second


def test_the_newest_checkpoint_is_that_of_most_updates(make_run):
    run = make_run()
    for step in (90, 1000, 200):
        (run.path / "checkpoints" / f"step-{step}").mkdir(parents=True)
    assert LiveReport(run, 0)._newest() == "step-1000"


def test_it_follows_a_run_and_ends_on_interrupt(make_run):
    """The command as a process: what is appended to the run appears, nothing is written, Ctrl-C is no error."""
    run = make_run(steps=50)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    command = [sys.executable, "-m", "mlxstories.cli", "watch", str(run.path), "--port", "0", "--num", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    try:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])
        with asking(port) as ask:
            _, headers, body = ask()
            assert "50 updates done" in body and "setInterval(refresh" in body
            assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
            last = [record for record in run.metrics() if record["split"] == "train"][-1]
            run.append(last | {"step": 60, "loss": 4.321})
            (run.path / "findings.json").write_text(
                json.dumps(
                    [{"code": "overfitting", "severity": "error", "rung": "training", "message": "it is so"}]
                )
            )
            deadline = time.monotonic() + 120
            status = 304
            while status == 304 or "it is so" not in body:
                assert time.monotonic() < deadline
                time.sleep(0.2)
                status, _, body = ask(If_None_Match=headers["ETag"])
            assert "60 updates done" in body and "4.321" in body
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in errors + output
