"""A captured script leaves everything as it was found, and what cannot be captured is said in one line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from click.testing import CliRunner

from mlxstories.cli import main
from mlxstories.errors import StoriesError
from mlxstories.ladder.capture import CapturedScript
from mlxstories.storage.files import scratch
from tests.ladder.scripts import LOOP, MODEL, line_of


def test_everything_is_left_as_it_was_found(captured, tmp_path, capfd):
    (tmp_path / "helper.py").write_text("FOUND = 1\n")
    text = (
        MODEL
        + """
import helper
os.makedirs("out", exist_ok=True)
os.environ["CAPTURED"] = "1"
random.seed(5), np.random.seed(5)
with open("out/log.txt", "w") as log: log.write("started")
with open("out/log.txt") as log: assert log.read() == "started"
print("hello", sys.argv[1:])
os.chdir("/")
mx.savez("weights.npz", a=mx.ones(2)), model.save_weights("weights.safetensors")
"""
        + LOOP
    )
    random.seed(1), np.random.seed(1), mx.random.seed(1)
    here = os.getcwd(), list(sys.argv), list(sys.path), dict(os.environ)
    states = random.getstate(), np.random.get_state()[1].tolist()
    key = np.array(mx.random.state[0]).tolist()
    hooked = nn.value_and_grad, mx.compile, optim.Optimizer.update, nn.Module.update, mx.savez, open, os.mkdir
    script = captured(text, "--size", "3")
    assert np.array(mx.random.state[0]).tolist() == key
    for _ in range(2):
        assert (os.getcwd(), sys.argv, sys.path, dict(os.environ)) == here and "helper" not in sys.modules
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states
        assert hooked == (
            *(nn.value_and_grad, mx.compile, optim.Optimizer.update, nn.Module.update),
            *(mx.savez, open, os.mkdir),
        )
        assert {p.name for p in tmp_path.iterdir()} == {"helper.py", "train.py"}
        script.subject.train_step(script.subject.model(), script.subject.optimizer(), script.batches[0])
    assert capfd.readouterr().out == ""
    with open(script.log) as log:
        assert "hello ['--size', '3']" in log.read()
    assert not script.notes


@pytest.mark.parametrize(("text", "kept"), [("", False), ("print('hello')\n", True)])
def test_a_log_that_stayed_empty_is_not_left_behind(captured, text, kept):
    script = captured(text + MODEL + LOOP.replace("print", "str"))
    assert script.printed == kept and os.path.exists(script.log)
    script.close()
    assert os.path.exists(script.log) == kept


def test_filters_of_warnings_are_the_script_s_own(captured):
    text = "import warnings\nwarnings.simplefilter('error')\nwarnings.showwarning = print\n" + MODEL + LOOP
    before = list(warnings.filters), warnings.showwarning
    with captured(text) as script:
        assert (list(warnings.filters), warnings.showwarning) == before
        with script.inside():
            assert warnings.filters[0][0] == "error" and warnings.showwarning is print
    assert (list(warnings.filters), warnings.showwarning) == before


def test_a_thread_that_goes_on_is_told(captured):
    thread = "import threading\nend = threading.Event()\ndef load():\n    end.wait()\n"
    text = MODEL + thread + "threading.Thread(target=load, daemon=True).start()\n" + LOOP
    script = captured(text)
    line = line_of(text, "def load")
    assert f"a thread that it has started goes on, and is not ended: load at train.py:{line}" in script.notes
    script.loop.script.names()["end"].set()
    end_of_threads()


def test_a_script_s_handlers_end_with_it(tmp_path):
    text = (
        MODEL
        + """
import atexit, logging, signal
signal.signal(signal.SIGINT, lambda *_: print("not yet"))
logging.basicConfig(level=logging.DEBUG)
logging.info("said in its log")
@atexit.register
def save(): open("left.txt", "w").close()
"""
        + LOOP
    )
    (tmp_path / "train.py").write_text(text)
    (tmp_path / "capture.py").write_text(
        "import logging, signal\n"
        "from mlxstories.ladder.capture import CapturedScript\n"
        "script = CapturedScript('train.py', steps=3, batches=16)\n"
        "script.close()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert (logging.root.level, logging.root.handlers) == (logging.WARNING, [])\n"
        "print(open(script.log).read())\n"
    )
    ended = subprocess.run([sys.executable, "capture.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and "said in its log" in ended.stdout, ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "capture.py"}


@pytest.mark.parametrize(
    "deed",
    [
        "os.makedirs('out/run'); os.chdir('out/run'); open('log.txt', 'w').close()",
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir(os.getcwd())",
    ],
)
def test_a_script_may_work_in_a_folder_that_it_makes_or_removes(captured, tmp_path, monkeypatch, deed):
    monkeypatch.chdir(tmp_path)
    script = captured(f"{MODEL}\n{deed}\n{LOOP}")
    script.subject.train_step(script.subject.model(), script.subject.optimizer(), script.batches[0])
    assert os.getcwd() == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def _scratch() -> set[Path]:
    """This process's folders of files that a script wrote."""
    return set(Path(tempfile.gettempdir()).glob(f"{scratch(os.getpid())}*"))


def test_files_made_past_open_are_left_out_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept.txt").write_text("kept")
    text = (
        MODEL
        + """
import shutil, tempfile
from pathlib import Path
os.close(os.open("low.txt", os.O_CREAT | os.O_WRONLY))
Path("touched").touch()
assert os.path.exists("low.txt") and Path("touched").is_file()
descriptor = os.open("config.json", os.O_WRONLY | os.O_APPEND)
os.write(descriptor, b" "), os.close(descriptor)
assert Path("config.json").read_text() == "{} "
os.makedirs("steps/1")
shutil.copy("config.json", "steps/1")
shutil.copy2("low.txt", "steps/dated.txt"), shutil.copytree("steps", "best"), shutil.rmtree("best")
os.remove("steps/dated.txt")
os.symlink("1", "steps/last"), os.link("old/kept.txt", "hard.txt")
assert os.listdir("steps/last") == ["config.json"] and Path("hard.txt").read_text() == "kept"
with open("hard.txt", "a") as file: file.write(", or not")
assert Path("hard.txt").read_text() == "kept, or not" and Path("old/kept.txt").read_text() == "kept"
os.truncate("low.txt", 3), os.chmod("low.txt", 0o600), os.chmod("config.json", 0), os.utime("touched")
os.replace("touched", "moving"), os.rename(src="moving", dst="moved"), os.mkfifo("pipe")
try: os.rename("nowhere", "moved")
except FileNotFoundError: pass
else: raise AssertionError("moved what is not there")
assert os.path.getsize("low.txt") == 3 and os.path.exists("moved") and not os.path.exists("touched")
shutil.rmtree("steps"), shutil.rmtree("old")
assert not os.path.exists("steps")
with tempfile.TemporaryDirectory() as folder: Path(folder, "a").write_text("a")
assert not os.path.exists(folder)
"""
        + LOOP
    )
    mode = (tmp_path / "config.json").stat().st_mode
    (tmp_path / "train.py").write_text(text)
    before = _scratch()
    CapturedScript("train.py", steps=3, batches=16).close()
    assert _scratch() <= before
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "config.json", "old"}
    assert (tmp_path / "config.json").read_text() == "{}" and (
        tmp_path / "config.json"
    ).stat().st_mode == mode
    assert (tmp_path / "old" / "kept.txt").read_text() == "kept"


def test_what_a_script_wrote_is_found_by_functions_in_c(captured):
    deed = """
np.save("ids.npy", np.arange(3)), np.savez("more.npz", a=np.arange(2))
assert mx.load("ids.npy").tolist() == [0, 1, 2] and mx.load("more.npz")["a"].tolist() == [0, 1]
from safetensors import numpy, safe_open
with open("weights.safetensors", "wb") as file: file.write(numpy.save({"a": np.ones(2)}))
with safe_open("weights.safetensors", framework="np") as file: assert list(file.keys()) == ["a"]
"""
    assert captured(MODEL + deed + LOOP).batches


def test_what_safetensors_writes_in_c_is_held_too(captured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deed = """
from safetensors.numpy import load_file, save_file
ones = np.ones(2, np.float32)
save_file({"a": ones}, "weights.safetensors"), save_file({"a": ones}, filename="more.safetensors")
assert load_file("weights.safetensors").keys() == mx.load("more.safetensors").keys() == {"a"}
"""
    assert captured(MODEL + deed + LOOP).batches
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_folder_that_was_there_before_can_be_replaced_again_and_again(captured, tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "old.txt").write_text("before")
    save = """
import shutil
def save(i):
    new = Path("best.tmp"); new.mkdir(); (new / "step.txt").write_text(str(i))
    if Path("best").exists(): shutil.rmtree("best")
    assert not Path("best").exists() and not Path("best/old.txt").exists()
    new.rename("best")
    assert os.listdir("best") == ["step.txt"] and Path("best/step.txt").read_text() == str(i)
"""
    text = "from pathlib import Path\n" + MODEL + save + LOOP + "    save(i)\n"
    script = captured(text)
    for _ in range(2):
        script.subject.train_step(script.subject.model(), script.subject.optimizer(), script.batches[0])
    assert (tmp_path / "best" / "old.txt").read_text() == "before"


BEST = """
    if i % 4 == 0:
        best = model.out.bias
        model.save_weights("next.safetensors"), mx.savez("state.npz", step=mx.array(i))
        os.replace("next.safetensors", "best.safetensors")
model.load_weights("best.safetensors")
assert mx.array_equal(model.out.bias, best) and mx.load("state.npz")["step"].item() == 8
"""


def test_the_best_weights_are_found_again_behind_the_loop(captured):
    script = captured(MODEL + LOOP.replace("range(500)", "range(12)") + BEST)
    assert len(script.batches) == 12 and not script.notes


def test_what_is_too_large_to_be_saved_is_held_back(captured, monkeypatch):
    monkeypatch.setattr("mlxstories.ladder.capture.files._ROOM", 1000)
    script = captured(MODEL + LOOP + "    model.save_weights('a.npz'), mx.save('b', mx.ones(2))\n")
    assert script.notes == ["mx.savez was held back"]


def test_pauses_of_a_script_are_cut_short(captured, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    captured("import time\ntime.sleep(600), time.sleep(0.001)\n" + MODEL + LOOP)
    assert slept[0] < 0.1 and slept[1] == 0.001


def test_a_folder_is_not_free_because_its_name_begins_as_that_of_a_cache(captured, tmp_path, monkeypatch):
    monkeypatch.setattr("mlxstories.ladder.capture.files._FREE", (f"{tmp_path}/cache",))
    (tmp_path / "cache").mkdir(), (tmp_path / "cache-of-runs").mkdir()
    deed = "for f in ('cache/a', 'cache-of-runs/b'): open(os.path.join(os.path.dirname(__file__), f), 'w').close()"
    captured(f"{MODEL}\n{deed}\n{LOOP}")
    assert [path.name for path in tmp_path.glob("cache*/*")] == ["a"]


NOT_CAPTURED = {
    "raises": ("x = 1\nprint(x)\nraise KeyError('lost')\n", "train.py:3"),
    "raises while it trains": (MODEL + LOOP + "    assert i < 2, 'lost'\n", "train.py:"),
    "exits": ("import sys\nsys.exit('no data here')\n", "train.py:2: no data here"),
    "asks": ("name = input('who? ')\n", "asks for input at "),
    "ends": ("print('done')\n", "without taking a gradient"),
    "needs arguments": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('text')\np.parse_args()\n",
        "text",
    ),
    "in a thread": (
        MODEL
        + "import threading\nstep = nn.value_and_grad(model, loss_fn)\n"
        + "t = threading.Thread(target=lambda: step(model, rows(), rows()))\nt.start()\nt.join()\n",
        "train.py:39, which cannot be watched",
    ),
    "arrays alone": (
        MODEL
        + "w = {'a': mx.ones(3)}\nstep = mx.grad(lambda w, x: (w['a'] * x).sum())\n"
        + "while True:\n    step(w, mx.ones(3))\n",
        "no nn.Module holds at ",
    ),
    "logits in the loss alone": (
        MODEL.replace("self.out(self.drop(x + mx.tanh(before)))", "self.drop(x + mx.tanh(before))").replace(
            "(model(x), y,", "(model.out(model(x)), y,"
        )
        + LOOP,
        "16 numbers a token, of which its loss makes 12 logits: have the model return these (the gradient at ",
    ),
    "an id that the model does not know": (
        # whose table and loss have room for it, or MLX would write beyond theirs
        MODEL.replace("nn.Embedding(V", "nn.Embedding(V + 3")
        .replace("integers(1, V,", "integers(1, V + 3,")
        .replace("cross_entropy(model(x), y,", "cross_entropy(model(x), mx.minimum(y, V - 1),")
        + LOOP,
        "its model is handed token id 14 and returns 12 numbers a token, for the ids 0 to 11",
    ),
    "a translator": (
        MODEL.replace("def __call__(self, ids)", "def __call__(self, source, ids)").replace(
            "model(x), y", "model(x, x), y"
        )
        + LOOP,
        "cannot be asked about token ids alone: missing a required argument: 'ids'",
    ),
    "tokens that the loss masks": (
        MODEL.replace("model(x), y", "model(mx.where(mx.random.uniform(shape=x.shape) < 0.2, 0, x)), y")
        + LOOP,
        "its loss changes token ids before its model reads them",
    ),
    "rewards": (
        MODEL.replace("def loss_fn(model, x, y)", "def loss_fn(model, x, y, rewards)").replace(
            'y, reduction="mean")', "y).mean(1) @ rewards"
        )
        + LOOP.replace("data[:, 1:])", "data[:, 1:], mx.arange(B) - 1.0)"),
        "its loss takes more of each row than tokens and what counts, an array of shape [4]",
    ),
    "no language model": (
        MODEL + "net = nn.Linear(3, 2)\nnn.value_and_grad(net, lambda x: net(x).sum())(mx.ones((4, 3)))\n",
        "token ids",
    ),
    "our own training": (
        MODEL
        + "from mlxstories.batch import Batch\nfrom mlxstories.model import ModelConfig, Transformer\n"
        + "from mlxstories.training.losses import next_token\n"
        + "own = Transformer(ModelConfig(vocab_size=12, dim=16, layers=1, heads=2, context=16))\n"
        + "def total(x):\n    return next_token(own, Batch(x[:, :-1], x[:, 1:], mx.ones(x[:, 1:].shape)))[0]\n"
        + "step = nn.value_and_grad(own, total)\nwhile True:\n    step(rows())\n",
        "`mlxstories debug RUN`",
    ),
}


def end_of_threads() -> None:
    """What the end of a thread warns of belongs to the test that began it."""
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_what_cannot_be_captured_is_said_in_one_line(captured, name):
    text, reason = NOT_CAPTURED[name]
    with pytest.raises(StoriesError) as error:
        captured(text)
    assert "train.py" in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)
    end_of_threads()


def test_a_script_that_fails_leaves_mlx_s_random_state_as_it_was(captured):
    mx.random.seed(1)
    key = np.array(mx.random.state[0]).tolist()
    with pytest.raises(StoriesError, match="lost"):
        captured("import mlx.core as mx\nmx.random.seed(5)\nraise KeyError('lost')\n")
    assert np.array(mx.random.state[0]).tolist() == key


def test_a_script_that_exits_while_it_trains_is_examined_on_what_it_did(captured):
    text = MODEL + LOOP + "    if i == 9:\n        sys.exit(3)\n"
    script = captured(text)
    line = line_of(text, "sys.exit")
    assert len(script.batches) == 10
    assert [n for n in script.notes if f"exited at train.py:{line}: SystemExit 3" in n]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_script_that_waits_for_the_thread_in_which_it_trains_is_not_waited_for(tmp_path):
    text = MODEL + (
        "import threading, time\nstep = nn.value_and_grad(model, loss_fn)\n"
        "threading.Thread(target=lambda: step(model, rows(), rows()), daemon=True).start()\n"
        "while True:\n    time.sleep(0.01)\n"
    )
    (tmp_path / "train.py").write_text(text)
    result = CliRunner().invoke(main, ["debug", str(tmp_path / "train.py"), "--timeout", "500"])
    assert result.exit_code == 2
    assert (
        f"trains in a thread of its own at {tmp_path}/train.py:{line_of(text, 'target=')}," in result.output
    )
    end_of_threads()


def test_a_script_may_be_captured_in_a_thread_of_the_caller_s(tmp_path):
    (tmp_path / "train.py").write_text(MODEL + LOOP)
    losses: list[float] = []

    def capture():
        with CapturedScript(str(tmp_path / "train.py"), steps=3, batches=16) as script:
            model, optimizer = script.subject.model(), script.subject.optimizer()
            losses.append(script.subject.train_step(model, optimizer, script.batches[0]).item())

    thread = threading.Thread(target=capture)
    thread.start()
    thread.join()
    assert np.isfinite(losses).all() and len(losses) == 1


def test_of_two_models_the_first_is_examined_and_the_other_named_with_its_line(captured):
    text = (
        MODEL
        + "other = Model()\n"
        + LOOP
        + "    nn.value_and_grad(other, loss_fn)(other, data[:, 1:], data[:, :-1])\n"
    )
    script = captured(text)
    assert len(script.batches) == 16 and (script.batches[0][0][:, 1:] == script.batches[0][1][:, :-1]).all()
    line = line_of(text, "(other, loss_fn)")
    assert [n for n in script.notes if n.startswith(f"a second model is trained at train.py:{line}")]


def test_of_a_slow_script_the_batches_are_read_without_its_updates(captured, monkeypatch):
    monkeypatch.setattr("mlxstories.ladder.capture.recording._SECONDS", 1.0)
    wait = "    began = time.process_time()\n    while i == 1 and time.process_time() < began + 1.2: pass\n"
    slow = LOOP.replace("    loss, grads =", f"{wait}    loss, grads =")
    script = captured(f"import time\n{MODEL}{slow}", steps=100)
    assert len(script.losses) < 16 == len(script.batches)


def test_a_script_that_hangs_ends_in_time(tmp_path):
    (tmp_path / "train.py").write_text("import time\nwhile True: pass\n")
    result = CliRunner().invoke(main, ["debug", str(tmp_path / "train.py"), "--timeout", "4"])
    assert result.exit_code == 2 and "not finished after 4 s at" in result.output
    assert "train.py:2, and no gradient was asked of MLX by then; raise --timeout" in result.output
