"""Whatever a subject does to the process that examines it, `mlxstories debug` ends with a finding and its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX")

SUBJECT = """
import os, re, signal, sys, time
import mlx.core as mx
import mlx.nn as nn
from mlxstories.ladder import Subject


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(32, 16), nn.Linear(16, 32)

    def __call__(self, tokens):
        return self.out(self.embed(tokens))


def batches(seed):
    mx.random.seed(seed)
    for _ in range(8):
        rows = mx.random.randint(0, 32, (4, 17))
        yield rows[:, :-1], rows[:, 1:], mx.ones((4, 16))


def made():
    return Subject(model=Model, vocab_size=32, train_batches=batches)


def subject():
"""

# What subject() does: the words of the finding, a part of them each.
DEEDS = {
    "exits-as-if-healthy": ("os._exit(0)", "exit code 0"),
    "becomes-another-program": ("os.execv('/bin/true', ['true'])", "exit code 0"),
    "is-killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "crashes-elsewhere": ("os.chdir('/'); os.abort()", "SIGABRT"),
    "swallows-the-limit": (
        "\n    while True:\n        try:\n            time.sleep(1)\n        except BaseException:\n            pass",
        "not finished after 0.5 s",
    ),
    "blocks-the-signal": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(999)",
        "not finished after 0.5 s",
    ),
    "closes-its-output": ("os.close(1); os.close(2); return made()", "Bad file descriptor"),
    "breaks-python": ("import json; json.dumps = None; return made()", "in the ladder itself"),
}


def debug(folder, deed: str, *options: str, timeout: str = "60") -> subprocess.CompletedProcess:
    (folder / "setup.py").write_text(f"{SUBJECT}    {deed}\n")
    code = "from mlxstories.cli import main; main()"
    command = [
        *(sys.executable, "-c", code, "debug", "setup.py", "--rung", "data", "--json", "found.json"),
        *("--timeout", timeout, *options),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", DEEDS)
def test_an_end_that_python_does_not_see(tmp_path, name):
    deed, words = DEEDS[name]
    result = debug(tmp_path, deed, timeout="0.5" if "0.5 s" in words else "60")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["healthy"] and [f["code"] for f in found["findings"]] == ["subject-error"]
    assert words in found["findings"][0]["message"] and words in result.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"setup.py", "found.json", "__pycache__"}


@pytest.mark.parametrize(
    "deed",
    [
        "os.chdir('/'); return made()",
        "import threading; threading.Thread(target=time.sleep, args=(999,)).start(); return made()",
        "import atexit; atexit.register(time.sleep, 999); return made()",
        "os.fork(); return made()",
    ],
    ids=["elsewhere", "thread", "atexit", "fork"],
)
def test_a_healthy_subject_of_bad_manners_is_healthy(tmp_path, deed):
    result = debug(tmp_path, deed)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "found.json").read_text())["healthy"]


@pytest.mark.skipif(sys.platform != "linux", reason="finds them in /proc")
def test_processes_left_behind_are_ended(tmp_path):
    deed = "import subprocess; p = subprocess.Popen(['sleep', '999'], start_new_session=True); "
    deed += "open('pid', 'w').write(str(p.pid)); return made()"
    assert debug(tmp_path, deed).returncode == 0
    left = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)


def test_a_signal_reaches_what_is_examined(tmp_path):
    (tmp_path / "setup.py").write_text(f"{SUBJECT}    open('begun', 'w'); time.sleep(999)\n")
    code = "from mlxstories.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, "debug", "setup.py"], cwd=tmp_path)
    begun = time.monotonic()
    while not (tmp_path / "begun").exists() and time.monotonic() < begun + 60:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + 15
