"""Hostile inputs by hand, thought up from docs/ alone: commands, files, runs. ``by_hand.py`` runs them.

Where the pages say how a case ends, it stands under ``REFUSED`` (one line, exit code 2) or ``TAKEN``; elsewhere both are
right. ``{}`` is where a value goes, ``{*}`` where several words do; values are separated by spaces, or are a list.
"""

# ruff: noqa: E501

from __future__ import annotations

import json
from typing import Any

TRAIN = "train --size debug --stories 20 --validation 5 --steps 1 --no-check"
OWN = "train --size debug --tokenizer word --steps 1 --no-check --data"
COMPARE = "compare --stories 6 --validation 2 --epochs 1 --sizes debug --seeds 1"
BIG, LONG, DEEP = str(2**63), "x" * 5000, "[" * 50_000
BAD_NAMES = ["", ".", "..", "a/b", "/x", "a\nb", "a\0b", "x" * 256, "\x1b[2J", "../run", "é" * 200]
NO_RUNS = [
    "nosuch",
    "",
    "..",
    "/",
    "a.txt",
    "runs",
    "\0",
    LONG,
    "~",
    "*",
    "run/nosuch",
    "exported",
    "\x1b[2J",
    "run ",
]

REFUSED: list[tuple[str, str | list[str]]] = [
    (f"{TRAIN} --stories {{}}", ["0", "-1", "1.5", "abc", "", "1e3", BIG, " ", "0x10", "--validation"]),
    (f"{TRAIN} --validation {{}}", "0 -5 nan 10000001"),
    (f"{TRAIN} --vocab-size {{}}", f"0 3 -1 10000001 2.5 {BIG}"),
    (f"{TRAIN} --tokenizer bpe --vocab-size {{}}", "200 258"),
    (f"{TRAIN} --data-seed {{}}", f"-1 {BIG} x 0.5"),
    (f"{TRAIN} --separator {{}}", ["comma", "", "AUTO,", "\\n"]),
    (f"{TRAIN} --split {{}}", "random head"),
    (f"{TRAIN} --tokenizer {{}}", "words wordpiece 1"),
    (f"{TRAIN} --size {{}}", "tiny 1 debug,small"),
    (f"{TRAIN} --norm {{}}", "batch none"),
    (f"{TRAIN} --positions {{}}", "none alibi"),
    (f"{TRAIN} --feed-forward {{}}", "mlp relu"),
    (f"{TRAIN} --layers {{}}", f"0 -1 1.5 1000000 {BIG}"),
    (f"{TRAIN} --dim {{}}", f"0 -16 7.5 10000000 {BIG}"),
    (f"{TRAIN} --dim 16 --heads {{}}", "0 -1 3 17 1000"),
    (f"{TRAIN} --hidden {{}}", f"0 -1 {BIG}"),
    (f"{TRAIN} --context {{}}", f"0 -1 x {BIG}"),
    (f"{TRAIN} --dropout {{}}", "-0.1 1 1.5 nan inf x 1e400"),
    (f"{TRAIN} --mixing {{}}", f"0 -1 x {BIG}"),
    (f"{TRAIN} --phase {{}}", "0 4 -1 1.0 x"),
    (f"{TRAIN} --optimizer {{}}", ["", "rmsprop", "adam w", "list", "\x1b[31m"]),
    (f"{TRAIN} --lr {{}}", ["", "-1", "inf", "nan", "1e400", "x", "0.1,0.2"]),
    (f"{TRAIN} --weight-decay {{}}", "-1 nan inf x"),
    (f"{TRAIN} --schedule {{}}", ["cosine", "", "wsd,noam"]),
    (f"{TRAIN} --warmup {{}}", "-1 nan 1e400 x"),
    (f"{TRAIN} --label-smoothing {{}}", "-0.1 1 2 nan"),
    (f"{TRAIN} --accumulation {{}}", f"0 -1 1.5 {BIG}"),
    (f"{TRAIN} --clip-norm {{}}", "-1 nan x"),
    (f"{TRAIN} --set {{}}", ["x", "=", "", "=1", "nosuch=1", "optimizer=1", "optimizer.nosuch=1", "a.b.c.d=1"]),
    (f"{TRAIN} --set optimizer.{{}}", "eps=-1 eps=x betas=[0.9] betas=[1,2] betas={} betas=0.9 learning_rate=true name=1"),
    (f"{TRAIN} --set {{}}", f"accumulation=true accumulation=[] clip_norm=[] schedule.name=1 schedule={DEEP} name={BIG}"),
    (f"{TRAIN} --epochs {{}}", f"0 -1 1.5 1{'0' * 400}"),
    (f"{TRAIN} --steps {{}}", f"0 -1 1e2 {BIG}"),
    (f"{TRAIN} --batch-size {{}}", f"0 -1 2.5 {BIG}"),
    (f"{TRAIN} --layout {{}}", "ragged PACKED_"),
    (f"{TRAIN} --seed {{}}", f"-1 1.5 x 1{BIG}"),
    (f"{TRAIN} --dtype {{}}", "float16 int8"),
    (f"{TRAIN} --log-every {{}}", "0 -1 x"),
    (f"{TRAIN} --evaluations {{}}", f"0 -1 {BIG}"),
    (f"{TRAIN} --stop-after {{}}", "-1 x"),
    (f"{TRAIN} --keep {{}}", "0 -1"),
    (f"{TRAIN} --save-every {{}}", "0 -1"),
    (f"{TRAIN} --name={{}}", BAD_NAMES),
    (f"{TRAIN} --runs {{}}", ["a.txt", "a.txt/x", "/dev/null/x", "/proc/x", "\0"]),
    (f"{TRAIN} --report-to {{}}", ["nosuch", "tensorboard,nosuch", ",", "tensorboard,,"]),
    (f"{TRAIN} --repair --max-repairs {{}}", "-1 x"),
    (f"{TRAIN} --patience {{}}", "-1 nan x"),
    (f"{TRAIN} --from {{}}", ["nosuch", "", "a.txt", "prepared", "runs"]),
    (f"{TRAIN} --arch {{}}", ["mlx-lm:nosuch", "mlx-lm:", "mlx-lm:os", "mlx-lm:../x", "mlx-lm:__init__", "transformer", "mlx-lm"]),
    (f"{TRAIN} {{*}}", ["--arch encoder --mixing 4", "--from run --layers 3", "extra", "--nosuch", "--lr", "-x", "--resum run"]),
    ("train --resume={}", NO_RUNS),
    (f"{OWN} {{}}", ["nosuch.txt", "", "empty", "/dev/null", "\0", LONG, "exported", "runs/run"]),
    (f"{OWN} prepared {{*}}", ["--data a.txt", "--tokenizer char", "--vocab-size 9", "--field x", "--split tail", "--separator file"]),
    (f"{OWN} a.txt {{*}}", ["--data stories", "--data tinystories", "--validation 9999", "--field", "--data nosuch"]),
    ("sample {}", NO_RUNS),
    ("sample run --num={}", f"0 -1 1.5 x {BIG}"),
    ("sample run --max-tokens={}", f"0 -1 x {BIG}"),
    ("sample run --temperature={}", "-1 nan inf x 1e400 -0.0001"),
    ("sample run --top-k={}", f"-1 1.5 x 1{BIG}"),
    ("sample run --top-p={}", "0 -0.1 1.1 nan x"),
    ("sample run --min-p={}", "-0.1 1.1 nan inf"),
    ("sample run --repetition-penalty={}", "0 -1 nan inf"),
    ("sample run --no-repeat-ngram={}", "-1 x 1.5"),
    ("sample run --seed={}", f"-1 x 1{BIG}"),
    ("sample run --weights={}", ["worst", "", "step-1", "best,last"]),
    ("sample run {*}", ["--tempreature 1", "run", "--runs nosuch", "--runs a.txt", "--num", "--json=1"]),
    (f"{COMPARE} --arms {{}}", ["nosuch", "empty", "", "a.txt", "/dev/null", "a.parquet", LONG]),
    (f"{COMPARE} --arch {{}}", ["nosuch", "", "decoder,", "decoder,nosuch"]),
    (f"{COMPARE} --scale {{}}", ["", "0", "-1", "x", "4,,6", "1e3", "4,abc", "4;6", BIG]),
    (f"{COMPARE} --sizes {{}}", ["", "tiny", "debug,tiny", ","]),
    (f"{COMPARE} --seeds {{}}", f"0 -1 x {BIG}"),
    (f"{COMPARE} --budget {{}}", "time all"),
    (f"{COMPARE} --epochs {{}}", "0 -1 0.5"),
    (f"{COMPARE} --batch-size {{}}", f"0 -1 {BIG}"),
    (f"{COMPARE} --context {{}}", "0 -1"),
    (f"{COMPARE} --jobs {{}}", "0 -1 x"),
    (f"{COMPARE} {{*}}", ["--ablate --schedules", "--arms a.json --ablate", "extra", "--store a.txt", "--json empty", "--report empty"]),
    ("plot {}", NO_RUNS),
    ("plot run {*}", ["--format gif", "--against time", "--export a.txt", "--export /proc/x", "nosuch", "--export \0"]),
    ("report {}", NO_RUNS),
    ("report run --to={}", ["empty", "/proc/x.html", "/dev/null/x.html", "a.txt/x.html", "\0"]),
    ("report run {*}", ["--num -1", "--num x", "--weights worst", "nosuch", f"--num {BIG}"]),
    ("watch {}", NO_RUNS),
    ("watch run --num 0 --port={}", f"-1 65536 x 1.5 {BIG}"),
    ("export {}", NO_RUNS),
    ("export run --to={}", ["exported", "a.txt", "a.txt/x", "/dev/null/x", "/proc/x", "runs/run", "\0"]),
    ("export run {*}", ["--dtype int8", "--quantize 3", "--quantize x", "--weights worst", "other"]),
    ("import {}", ["nosuch", "a.txt", "runs/run", "", "empty", "prepared", "\0", LONG, "a.json", "/dev/null"]),
    ("import exported --name={}", [*BAD_NAMES, "run"]),
    ("data show --data {}", ["nosuch", "", "empty", "\0", LONG, "/dev/null"]),
    ("data show {*}", ["--stories 0", "--stories -1", "--stories x", "--seed -1", "--seed x", "--separator x", "extra"]),
    ("data show --data a.txt {*}", ["--data stories", "--floor", "--data nosuch"]),
    ("data stats {*}", ["--data nosuch", "--stories 0", "--validation 0", "--tokenizer x", "--data empty", "--data a.txt --validation 999"]),
    ("data prepare {*}", ["", "stories", "a.txt", "nosuch --to new", "empty --to new", "--to new", "a.txt stories --to new"]),
    ("data prepare a.txt --to={}", ["a.txt", "exported", "runs", "/proc/x", "/dev/null/x", "a.txt/x", "\0"]),
    ("data prepare a.txt --to new {*}", ["--split tail", "--validation 999", "--stories 0", "--vocab-size 1", "--tokenizer x", "--data-seed -1"]),
    ("data prepare a.txt --to prepared {*}", ["--tokenizer char", "--validation 3", "--vocab-size 99"]),
    ("data verify {}", ["nosuch", "a.txt", ".", "exported", "runs/run", "", "empty", "\0", "prepared prepared", "stories"]),
    ("data {*}", ["nosuch", "Show", "--stories 3"]),
    ("info --cost {*}", ["--layers 0", "--dim 7 --heads 2", "--batch-size 0", "--vocab-size 0", "--arch nosuch", "--context -1", "--dropout 1"]),
    ("info {*}", ["extra", "--size tiny", "--nosuch"]),
    ("{*}", ["nosuch", "trian", "--nosuch", "\0", LONG, "\x1b[31m", "train.py", "-x"]),
    ("debug --steps={}", "0 10001 x"),
    ("debug --stories={}", "0 65 -1"),
    ("debug --seed={}", "-1 2147483648"),
    ("debug --timeout={}", "-1 nan x"),
    ("debug --format={}", "xml json"),
    ("debug --rung={}", ["nosuch", ""]),
    ("debug --break {}", ["nosuch", "", LONG]),
    ("debug {*}", ["nosuch.py", "", ":", "a.txt", "mlx-lm:", "mlx-lm:nosuch", "empty", "-m nosuch", "-m ../x", "--set x=1", "--follow"]),
]  # fmt: skip

TAKEN: list[tuple[str, str | list[str]]] = [
    (f"{TRAIN} {{*}}", ["--name é", "--name 'x", "--seed 0", "--dropout 0", "--lr 1e-30", "--context 2"]),
    (f"{TRAIN} --name {{}}", ["$(rm)", "a&b", "<b>", "{{7*7}}", "名前", "a b", "%s", "con", "🙂"]),
    ("sample run --num 1 --max-tokens 3 --prompt={}", ["", "\t", "<|endoftext|>", "\x1b[31m", "x" * 20_000, "名前", "{{7*7}}", "\u202e"]),
    ("sample run --num 1 --max-tokens 3 {*}", ["--temperature 0", "--temperature 1e-30", "--temperature 1e30", "--top-k 99999", "--min-p 0.999", "--top-p 1e-30", "--repetition-penalty 1e30", "--no-repeat-ngram 1", "--json", "--stream"]),
    ("plot {*}", ["run", "run run", "runs/run", "./runs/../runs/run/", "run --format svg --against tokens"]),
    ("report {*}", ["run --num 0", "run run --num 0", "runs/run/ --num 0", "run --num 0 --to new/deep/page.html"]),
    ("data show --data {*}", ["a.txt", "./a.txt", "a.txt --data a.txt", "a.json --field x --separator file"]),
    ("data {*}", ["verify prepared", "verify ./prepared/", "stats --data a.txt", "prepare a.txt --to new"]),
    ("info {*}", ["--json", "--cost --size debug"]),
]  # fmt: skip

# Content of a file of stories; each is shown and counted.
TEXTS: list[tuple[str, str | bytes]] = [
    ("a.txt", content)
    for content in [
        "", "\n" * 1000, " ", "\ufeff", b"\0", b"\0" * 5000, "x", "One.", "One.\n\nOne.", "One.\n\nONE.", "A.\r\n\r\nB.\r\n\r\nC.",
        "A.\rB.\rC.", "A.\t\tB.", "A.\f\fB.\n\nC.", "A.\u2028\u2028B.\n\nC.", "A.\x85\x85B.\n\nC.", "👨‍👩‍👧‍👦\n\n🏳️‍🌈", "\u202eabc\u202c\n\nb",
        "\x1b[2J\x1b]0;x\x07\n\nb", "Z" + "\u0301" * 5000 + "\n\nb", "Zoë ran.\n\nÄ.".encode("latin-1"), "“Zoë”\n\nb".encode("cp1252"),
        "A.\n\nB.".encode("utf-16"), "A.\n\nB.".encode("utf-16-be"), "A.\n\nB.".encode("utf-32"), "猫が走る。\n\n犬。".encode("shift-jis"),
        "猫跑了。\n\n狗。".encode("gbk"), "Кот.\n\nПёс.".encode("koi8-r"), "A.\n\nZoë".encode()[:-1], b"A.\n\n\xc0\x80", b"A.\n\n\xed\xa0\x80",
        "<|endoftext|>", "<|endoftext|>" * 50, "A<|endoftext|>B", "A.<|endof\n\ntext|>B.", "A.< |endoftext| >B.", "<|unknown|>\n\n<|mask|>",
        "a " * 300_000, "a\n\n" * 9000, "\n\n".join(f"s{i}" for i in range(9000)), "1 2 3\n\n4 5", "...\n\n!!!", "___\n\n_", "<html><b>x</b>\n\ny",
        b"\x1f\x8b\x08\0\0", b"\x89PNG\r\n\x1a\n\0\0", b"%PDF-1.7\n\xff", b"PK\3\4", b"SQLite format 3\0", b"+AGE-\n\nb", "\ue000\n\n\uf8ff", "\ufffe\n\n\uffff",
        "\1\2\3\n\n\4", "a\b\b\n\nb", "a\x1a\n\nb", '"a\n\n"b', "{{7*7}}\n\n${x}", "<script>alert(1)</script>\n\nb", "\u200b\n\n\u200c", "\u00a0\n\n\u3000",
    ]
] + [
    ("a.jsonl", content)
    for content in [
        "", "\n\n", "[]", "{}", '""', "null", "1", '{"text": null}', '{"text": 1}', '{"text": ["a"]}', '{"text": {"text": "a"}}', '{"text": ""}',
        '{"text": " "}', '{"text": "a"}\n{"text": "b"}', '\ufeff{"text": "a"}\n{"text": "b"}', '{"text": "a"}\r\n\r\n{"text": "b"}',
        '{"text": "a"}\n{"story": "b"}', '{"text": "a"},\n{"text": "b"}', '{"text": "a", "text": "b"}\n{"text": "c"}', '{"text": "\\ud800"}\n{"text": "b"}',
        '{"text": "\\u0000"}\n{"text": "b"}', '{"text": NaN}', '{"text": "a", "n": 1e999}\n{"text": "b"}', '// x\n{"text": "a"}', "{'text': 'a'}",
        '{"text": "a", "n": ' + "9" * 5000 + '}\n{"text": "b"}', '{"text": ' + DEEP, '{"text": "a"', '{"text": "a\nb"}', '{"Text": "a"}', '{"text ": "a"}',
        '{"": "a"}', '{"text": "a"} {"text": "b"}', '[{"text": "a"}, {"text": "b"}]', '{\n"text": "a"\n}', '{"text": "a"}'.encode("utf-16"), b'{"text": "\xff"}',
        '{"text": true}', '{"__proto__": {}, "text": "a"}\n{"text": "b"}', '{"text": "\\x41"}', '{"text": "a"}\0\n{"text": "b"}',
    ]
]  # fmt: skip

# A field of a JSON file that a command reads, what it holds instead, and the commands.
FIELDS: list[tuple[str, str, list[Any], list[str]]] = [
    ("runs/run/config.json", field, values, ["sample run --num 1", "report run --num 0"])
    for field, values in [
        ("format", [0, 99, "1", None, [], True]),
        ("model", [None, 1, [], {}, "x"]),
        ("model.layers", [0, -1, 10**7, 1.5, "2", None, True, 10**30]),
        ("model.dim", [0, 7, -16, 2**31, "16"]),
        ("model.heads", [0, 3, 10**6]),
        ("model.context", [0, -1, 10**9, "x"]),
        ("model.vocab_size", [0, 3, 5, 10**8]),
        ("model.dropout", [1, -1, "x", float("nan")]),
        ("model.arch", ["nosuch", None, "mlx-lm:os"]),
        ("model.nosuch", [1]),
        ("phase", [1, None, [], "x"]),
        ("data", [1, None, []]),
        ("data.source", [1, {}, "../..", "\x1b[2J"]),
        ("training.seed", [-1, "x", 10**40]),
        ("name", [1, None, "../x", "<script>alert(1)</script>"]),
        ("seed", ["x", None, -1]),
        ("versions", [1, None, []]),
        ("floor", [1, "x", {"nats": "x"}, {"nats": float("nan")}]),
        ("command", [1, [], "<b>", "\x1b[2J"]),
        ("parameters", ["x", -1, 10**40]),
    ]
] + [
    ("exported/config.json", field, values, ["import exported --name back"])
    for field, values in [
        ("model_type", ["nosuch", None, 1, "../x"]),
        ("hidden_size", [0, -1, "x", 10**9, 17]),
        ("num_hidden_layers", [0, 10**7, 1.5, None, 9]),
        ("num_attention_heads", [0, 3, "x"]),
        ("vocab_size", [0, 10**9, 5, "x"]),
        ("max_position_embeddings", [0, 10**12, "x"]),
        ("quantization", [1, {"bits": 3}, {"bits": "x", "group_size": 0}]),
        ("architectures", [1, [], None]),
    ]
] + [
    ("prepared/shards.json", field, values, ["data verify prepared", "data show --data prepared"])
    for field, values in [("format", [0, 99, "x"]), ("train", [1, None, [], [{}]]), ("fingerprint", [1, "", None])]
]  # fmt: skip

# Arms of a comparison.
ARMS: list[Any] = [
    None, 1, "x", [], {}, [{}], {"a": None}, {"a": 1}, {"a": []}, {"a": {}}, {"": {}}, {"a": {"phase": 0}}, {"a": {"phase": 4}},
    {"a": {"phase": "1"}}, {"a": {"phase": True}}, {"a": {"nosuch": 1}}, {"a": {"optimizer": 1}}, {"a": {"optimizer.eps": "x"}},
    {"a": {"optimizer.eps": -1}}, {"a": {"optimizer.betas": [1]}}, {"a": {"model.layers": 0}}, {"a": {"model.layers": 10**7}},
    {"a": {"model.vocab_size": 9}}, {"a": {"data.source": "x"}}, {"a": {"accumulation": 10**9}}, {"a": {"schedule.name": "x"}},
    {"a/b": {"nosuch": 1}}, {"../x": {"phase": 9}}, {"\n": {"phase": 1}}, {"x" * 5000: {"phase": 1}}, {"a": {"": 1}}, {"a": {".": 1}},
    {"a": {"optimizer.": 1}}, {"a": {"optimizer..eps": 1}}, {"a": {"clip_norm": "x"}}, {"a": {"clip_norm": -1}}, {"a": {"name": []}},
]  # fmt: skip


def arms() -> list[str]:
    """As the text of a file."""
    texts = [
        "",
        "{",
        "[]]",
        DEEP,
        '{"a": {"phase": NaN}}',
        '{"a": {"phase": 1, "phase": 9}}',
        "\ufeff{}",
        "nul",
    ]
    return [*map(json.dumps, ARMS), *texts]
