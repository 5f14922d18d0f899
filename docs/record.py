"""Record commands in a real terminal and write what it shows as SVG: docs/images/NAME.svg.

    python docs/record.py            # all of SESSIONS
    python docs/record.py debug      # one of them

The command runs on a pseudo-terminal; an emulator (pyte) follows its cursor, and rich draws the last screen. The
picture loads no font and nothing else from the network.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COLUMNS, LINES = 100, 200
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SESSIONS = {
    "debug": "mlxstories debug --break no-causal-mask",
}


def run(command: str, folder: Path | None = None) -> pyte.Screen:
    """The screen that a terminal of 100 columns shows after ``command``, run in ``folder`` or here."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    process = subprocess.Popen(
        shlex.split(command), cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # Linux tells the end of a terminal so
            break
        if not data:
            break
        stream.feed(data)
    process.wait()
    return screen


def as_text(screen: pyte.Screen) -> Text:
    """The lines of ``screen`` up to the last that is not blank, with their colours."""
    last = max((number for number, line in enumerate(screen.display) if line.strip()), default=0)
    text = Text()
    for number in range(last + 1):
        for column in range(len(screen.display[number].rstrip())):
            cell = screen.buffer[number][column]
            style = "" if cell.fg == "default" else cell.fg
            text.append(cell.data, style=f"{style} bold".strip() if cell.bold else style)
        text.append("\n")
    return text


def svg(command: str, name: str) -> str:
    """What a terminal shows when ``command`` is typed and run."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(as_text(run(command)), end="")
    drawn = console.export_svg(title="mlxstories", unique_id=name)
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return drawn.replace("Fira Code, monospace", FONTS)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SESSIONS:
        (IMAGES / f"{name}.svg").write_text(svg(SESSIONS[name], name), encoding="utf-8")


if __name__ == "__main__":
    main()
