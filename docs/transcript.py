"""Rerun the transcript of README.md, a folder of tales from training to a told story, and write it there.

    python docs/transcript.py BOOKS    # on a machine that does nothing else: about two minutes on two cores

The pieces of the file BOOKS are separated by ``<|endoftext|>``, and the first 17 are the Wizard of Oz. The commands run
on a pseudo-terminal; of many validations the first and the last are kept.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import tempfile
import textwrap
import time
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- tales:begin -->", "<!-- tales:end -->"
TALES = 17
COMMANDS = (
    "mlxstories train --data tales --name tales",
    'mlxstories sample tales --prompt "Dorothy looked at the Lion" --num 1 --seed 7 --temperature 0.6',
)
_LAST = 4  # validations
_TOLD = 8  # lines of a story


def tales(books: Path, folder: Path) -> int:
    """The first pieces of ``books`` as files in ``folder``, with a picture that is not read; their characters."""
    pieces = [piece.strip() for piece in books.read_text(encoding="utf-8").split("<|endoftext|>")][:TALES]
    folder.mkdir()
    for number, piece in enumerate(pieces, 1):
        (folder / f"tale-{number:02}.txt").write_text(f"{piece}\n", encoding="utf-8")
    (folder / "cover.jpg").write_bytes(b"")
    return sum(map(len, pieces))


def shortened(lines: list[str]) -> list[str]:
    """What a command showed, without its progress bar, most of its validations and what it told beside them."""
    lines = [line for line in lines if not line.startswith("━")]
    steps = [number for number, line in enumerate(lines) if line.startswith("step ")]
    if len(steps) > _LAST + 1:
        lines[steps[1] : steps[-_LAST]] = ["..."]
    ends = [number for number, line in enumerate(lines) if line.startswith("seed ")]
    if steps:
        return lines[: ends[0]] if ends else lines
    story = lines[: ends[0]] if ends else lines
    return [*story[:_TOLD], "..."] if len(story) > _TOLD else story


def written(readme: str, characters: int, seconds: float, cpu: float, shown: dict[str, list[str]]) -> str:
    """README.md with the commands, what they showed and what they took."""
    text = " ".join(line for lines in shown.values() for line in lines)
    trained = re.search(r"seed (\d+), ([\d,]+) tokens in ([\d,]+) updates", text)
    took = (
        f"A folder of tales (here {TALES} pieces of the Wizard of Oz, {characters / 1000:.0f} KB), on {os.cpu_count()} "
        f"cores of {platform.machine()} {platform.system()}: {seconds:.0f} seconds in all, {cpu:.0f} of CPU time "
        f"(seed {trained[1]}, {trained[2]} tokens in {trained[3]} updates):"
    )
    blocks = ["\n".join([f"$ {command}", *shortened(lines)]).strip() for command, lines in shown.items()]
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return (
        f"{before}{BEGIN}\n{textwrap.fill(took, 120)}\n\n```text\n"
        + "\n\n".join(blocks)
        + f"\n```\n{END}{after}"
    )


def main() -> None:
    from record import run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        characters = tales(Path(sys.argv[1]), folder / "tales")
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = {command: [line.rstrip() for line in run(command, folder).display] for command in COMMANDS}
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    page = written(README.read_text(encoding="utf-8"), characters, time.monotonic() - began, cpu, shown)
    README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
