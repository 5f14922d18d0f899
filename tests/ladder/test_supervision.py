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
LINE = SUBJECT.count("\n") + 1  # of the deed

# What subject() does: the words of the finding, a part of them each.
DEEDS = {
    "exits-as-if-healthy": ("os._exit(0)", "exit code 0"),
    "becomes-another-program": ("os.execv('/bin/true', ['true'])", "exit code 0"),
    "is-killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "crashes-elsewhere": ("os.chdir('/'); os.abort()", f"SIGABRT at setup.py:{LINE}"),
    "reads-past-a-table": (
        "mx.eval(nn.Embedding(4, 4096)(mx.array([2**30])))",
        f"SIGSEGV at setup.py:{LINE}",
    ),
    "swallows-the-limit": (
        "\n    while True:\n        try:\n            time.sleep(1)\n        except BaseException:\n            pass",
        "not finished after 3 s",
    ),
    "blocks-the-signal": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(999)",
        "not finished after 3 s",
    ),
    "closes-its-output": ("os.close(1); os.close(2); return made()", "Bad file descriptor"),
    "breaks-python": ("import json; json.dumps = None; return made()", "in the ladder itself"),
}


ENDLESS = """
import time
import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optim

model = nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 32))
optimizer = optim.AdamW(1e-3, bias_correction=True)
step = nn.value_and_grad(model, lambda ids, wanted: nn.losses.cross_entropy(model(ids), wanted).mean())
try:
    while True:
        rows = mx.random.randint(0, 32, (4, 17))
        loss, gradients = step(rows[:, :-1], rows[:, 1:])
        optimizer.update(model, gradients)
        mx.eval(model, optimizer)
finally:
    time.sleep(999)
"""
COMMAND = [sys.executable, "-c", "from mlxstories.cli import main; main()", "debug"]


def debug(folder, deed: str, *options: str, timeout: str = "60") -> subprocess.CompletedProcess:
    (folder / "setup.py").write_text(f"{SUBJECT}    {deed}\n")
    command = [*COMMAND, "setup.py", "--rung", "data", "--json", "found.json", "--timeout", timeout, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


QUICK = ("is-killed", "swallows-the-limit", "closes-its-output")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in DEEDS]
)
def test_an_end_that_python_does_not_see(tmp_path, name):
    deed, words = DEEDS[name]
    result = debug(tmp_path, deed, timeout="3" if "3 s" in words else "60")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["healthy"] and [f["code"] for f in found["findings"]] == ["subject-error"]
    assert words in found["findings"][0]["message"] and words in result.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"setup.py", "found.json", "__pycache__"}


def test_what_was_found_before_such_an_end_is_told_beside_it(tmp_path):
    deed = (
        "Model.__call__ = lambda model, tokens: os.abort(); return Subject(model=Model, vocab_size=32, "
        "train_batches=lambda seed: 40 * list(batches(seed))[:1])"
    )
    result = debug(tmp_path, deed, "--rung", "init")
    found = json.loads((tmp_path / "found.json").read_text())
    assert result.returncode == 1 and not found["healthy"], result.stdout
    assert [f["code"] for f in found["findings"]] == ["subject-error", "constant-batches"]
    assert [(rung["name"], rung["status"]) for rung in found["rungs"]] == [
        ("data", "failed"),
        ("init", "failed"),
    ]
    assert "SIGABRT" in found["rungs"][-1]["checks"][-1]["detail"]


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param("os.chdir('/'); return made()", id="elsewhere", marks=pytest.mark.long),
        pytest.param(
            "import threading; threading.Thread(target=time.sleep, args=(999,)).start(); return made()",
            id="thread",
        ),
        pytest.param(
            "import atexit; atexit.register(time.sleep, 999); return made()",
            id="atexit",
            marks=pytest.mark.long,
        ),
        pytest.param("os.fork(); return made()", id="fork", marks=pytest.mark.long),
    ],
)
def test_a_healthy_subject_of_bad_manners_is_healthy(tmp_path, deed):
    result = debug(tmp_path, deed)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "found.json").read_text())["healthy"]


def test_a_subject_that_removes_its_directory_is_examined_to_the_end(tmp_path):
    gone = "gone = os.path.abspath('gone'); os.mkdir(gone); os.chdir(gone); os.rmdir(gone)"
    wrong = "return Subject(model=Model, vocab_size=16, train_batches=batches)"
    result = debug(tmp_path, f"{gone}; {wrong}")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert "token-out-of-range at setup.py:" in result.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["findings"][0]["code"] == "token-out-of-range"


@pytest.mark.long
@pytest.mark.parametrize("loop", ["any(itertools.repeat(0))", "time.sleep(999)"], ids=["C", "Python"])
def test_the_limit_holds_for_deep_too(tmp_path, loop):
    (tmp_path / "hangs.py").write_text(
        "import itertools, time, traceback\ndef loss(model, batch):\n"
        f"    if 'exchange' in ''.join(traceback.format_stack()): open('reached', 'w'); {loop}\n"
        "    return (model(batch[0]) ** 2).mean()\n"
    )
    deed = "import hangs; return Subject(model=Model, vocab_size=32, train_batches=batches, loss=hangs.loss)"
    for limit in (6, 20, 60):  # a busy machine may need longer to come to the exchange
        result = debug(tmp_path, deed, "--deep", timeout=str(limit))
        if (tmp_path / "reached").exists():
            break
    found = json.loads((tmp_path / "found.json").read_text())
    assert "Traceback" not in result.stderr
    if "sleep" in loop:
        (line,) = found["rungs"][-1]["checks"]
        assert found["rungs"][-1]["name"] == "exchange" and "out of time" in line["detail"]
    else:
        assert result.returncode == 1 and [f["code"] for f in found["findings"]] == ["subject-error"]
        assert f"not finished after {limit} s" in found["findings"][0]["message"]


FOLLOWED = {
    "any(itertools.repeat(0))": (2, "ignored the time limit"),
    "time.sleep(999)": (2, "train.py: not finished after 0.5 s"),
    "while True:\n    try: time.sleep(1)\n    except Exception: pass": (2, "ignored the time limit"),
    "os._exit(3)": (2, "exit code 3"),
    "sys.exit(3)": (3, ""),
    "pass": (0, "nothing found"),
}


@pytest.mark.long
@pytest.mark.parametrize("script", FOLLOWED, ids=range(len(FOLLOWED)))
def test_the_limit_holds_for_follow_where_it_is_given(tmp_path, script):
    (tmp_path / "train.py").write_text(f"import itertools, os, sys, time\n{script}\n")
    code, words = FOLLOWED[script]
    # others end by themselves, on a busy machine late
    limit = "0.5" if words.endswith(("time limit", "0.5 s")) else "60"
    command = [*COMMAND, "--follow", "--timeout", limit, "train.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == code and words in result.stderr and "Traceback" not in result.stderr


def test_a_script_that_falls_leaves_nothing_but_its_output(tmp_path):
    (tmp_path / "train.py").write_text("import os\nopen('a.txt', 'w').write('a')\nos._exit(3)\n")
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    command = [*COMMAND, "train.py"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment
    )
    assert result.returncode == 1 and "exit code 3" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "temporary"}
    assert [path.suffix for path in (tmp_path / "temporary").iterdir()] == [".log"]


def test_a_script_that_does_not_end_when_it_is_stopped_has_its_diagnosis(tmp_path):
    (tmp_path / "train.py").write_text(ENDLESS)
    command = [*COMMAND, "train.py", "--rung", "data", "--json", "found.json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
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
    process = subprocess.Popen([*COMMAND, "setup.py"], cwd=tmp_path)
    begun = time.monotonic()
    while not (tmp_path / "begun").exists() and time.monotonic() < begun + 60:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + 15
