"""Stories out of web pages, word processor files, e-books and PDF, through libraries made for each.

They are the extra ``documents`` of pyproject.toml; what is missing is named.
"""

from __future__ import annotations

import importlib.util
import logging
import posixpath
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mlxstories.data.paragraphs import joined, width_of
from mlxstories.errors import StoriesError

# suffix: the module that reads it
READERS = {".html": "bs4", ".htm": "bs4", ".xhtml": "bs4", ".epub": "bs4", ".docx": "docx", ".pdf": "pypdf"}
_PACKAGES = {"bs4": "beautifulsoup4", "docx": "python-docx", "pypdf": "pypdf"}
_NOT_TOLD = ("script", "style", "nav", "head", "header", "footer", "template")
_BLOCKS = (
    "p",
    "br",
    "div",
    "li",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "tr",
    "blockquote",
    "section",
    "article",
)


def missing(suffix: str) -> str:
    """What would make files of this suffix readable."""
    return f"pip install {_PACKAGES.get(READERS[suffix], READERS[suffix])} for {suffix}, or save as .txt"


def readable(suffix: str) -> bool:
    """Whether the library for files of this suffix is installed."""
    return suffix in READERS and importlib.util.find_spec(READERS[suffix]) is not None


def read_document(path: Path) -> Iterator[str]:
    """The text of a document as one story; of an e-book, each of its parts in reading order.

    Raises:
        StoriesError: the library is not installed, or the file is damaged.
    """
    suffix = path.suffix.lower()
    if not readable(suffix):
        raise StoriesError(f"{path} needs a library: {missing(suffix)}")
    read = {".docx": _docx, ".pdf": _pdf, ".epub": _epub}.get(suffix, _html)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bs4, of pages that are XML too
            texts = list(read(path))
    except StoriesError:
        raise
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # each library has its own for a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise StoriesError(
            f"{path} cannot be read as {suffix} ({reason}): take it out, or save it as .txt"
        ) from error
    yield from texts


def _html(path: Path) -> Iterator[str]:
    yield text_of(path.read_bytes())


def text_of(page: bytes) -> str:
    """The text of an HTML page, a paragraph a line, an empty line between two; its encoding is found by bs4."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "html.parser")
    for part in soup(_NOT_TOLD):
        part.decompose()
    for part in soup(_BLOCKS):
        part.insert_before("\n\0")
        part.append("\n\0")
    spaced = " ".join(soup.get_text().replace("\n\0", "\0").split())
    paragraphs = (paragraph.strip() for paragraph in spaced.split("\0"))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _docx(path: Path) -> Iterator[str]:
    import docx

    yield "\n\n".join(part.text for part in docx.Document(str(path)).paragraphs if part.text.strip())


def _pdf(path: Path) -> Iterator[str]:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it cannot read, it raises
    reader = pypdf.PdfReader(path)
    text = "\n".join(page.extract_text() for page in reader.pages)
    if width := width_of(text.split("\n")):
        text = joined(text, width)
    if not text.strip():
        raise StoriesError(
            f"{path} holds pictures of pages and no text; it needs character recognition first"
        )
    yield text


def _epub(path: Path) -> Iterator[str]:
    """The parts that the book's package document lists in its spine (EPUB 3.3, sections 5.6 and 5.7)."""
    from bs4 import BeautifulSoup

    with zipfile.ZipFile(path) as book:
        container = BeautifulSoup(book.read("META-INF/container.xml"), "html.parser")
        package = container.find("rootfile")["full-path"]
        listed = BeautifulSoup(book.read(package), "html.parser")
        places = {item["id"]: item["href"] for item in listed.find_all("item")}
        for reference in listed.find_all("itemref"):
            part = posixpath.join(posixpath.dirname(package), places[reference["idref"]])
            if text := text_of(book.read(part)):
                yield text
