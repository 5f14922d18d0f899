"""Contenders that take turns, each in a process of its own, so that a busy machine is fair to all of them.

A worker is a command that prints a JSON object when it is ready, then answers each line ``go`` on its standard
input with another one, and the line ``end`` with a last one before it exits. Every round asks every contender
once; a round in which one of them took a quarter longer than it usually does is dropped for all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence

DISTURBED = 1.25


class Worker:
    """A contender's process."""

    def __init__(self, command: Sequence[str]):
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self._read()

    def ask(self, word: str) -> dict:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> dict:
        last = self.ask("end")
        self._process.communicate()
        return last

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender ended early, with exit code {self._process.wait()}.")
        return json.loads(line)


def serve(ready: dict, go, end) -> None:
    """The worker's side: ``go()`` and ``end()`` return what is answered."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        last = line.strip() == "end"
        print(json.dumps(end() if last else go()), flush=True)
        if last:
            return


def alternate(workers: dict[str, Worker], rounds: int) -> tuple[dict[str, list[dict]], int]:
    """Every contender's answers in the rounds that count, and how many rounds were dropped.

    An answer has ``seconds``, the wall-clock time that is compared.
    """
    answers = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            answers[name].append(worker.ask("go"))
    usual = {name: statistics.median(a["seconds"] for a in row) for name, row in answers.items()}
    good = [
        i
        for i in range(rounds)
        if all(row[i]["seconds"] < DISTURBED * usual[name] for name, row in answers.items())
    ]
    if not good:
        print("every round was disturbed; all of them count.")
        good = list(range(rounds))
    return {name: [row[i] for i in good] for name, row in answers.items()}, rounds - len(good)
