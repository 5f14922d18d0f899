"""What is in a folder: encodings, documents, files that are not read, and lines that most of them share."""

from __future__ import annotations

import zipfile

import pytest

from mlxstories.data import documents, folder
from mlxstories.data.encodings import encoding_of
from mlxstories.data.folder import contents, matching, remarks
from mlxstories.data.readers import read_documents
from mlxstories.errors import StoriesError

FRENCH = "Il était une fois une forêt où vivait un garçon très âgé déjà; où est-il passé? À l’école.\n"
POLISH = "Był sobie król, który miał trzy córki i każda z nich była piękna jak słońce.\n"
RUSSIAN = "Жили-были старик со старухой у самого синего моря. Старик ловил неводом рыбу.\n"
JAPANESE = "むかしむかし、あるところに、おじいさんとおばあさんがいました。\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "cp1252"),
        (POLISH, "cp1250"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (JAPANESE, "shift_jis"),
        (FRENCH, "utf-16"),
        (FRENCH, "utf-8"),
    ],
)
def test_an_encoding_is_recognised_and_the_text_comes_out_as_it_was(tmp_path, text, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(("Once upon a time.\r\n" + text).encode(encoding))
    assert encoding_of(path) == encoding
    assert list(read_documents([path], separator="file")) == ["Once upon a time.\n" + text.strip("\n")]


def test_a_damaged_byte_in_utf_8_is_no_other_encoding(tmp_path):
    path = tmp_path / "a b.txt"
    path.write_bytes(FRENCH.encode() + b"caf\xe9\n")
    where = rf"line 2 is not UTF-8 \(at byte {len(FRENCH.encode()) + 3}\)"
    with pytest.raises(StoriesError, match=rf"{where}.*leave such bytes out: iconv -c .* '{path}' > NEW"):
        list(read_documents([path]))


def test_an_empty_file_of_a_folder_is_named_and_not_read(tmp_path):
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.txt").touch()
    assert list(remarks([tmp_path])) == [f"{tmp_path}: 1 file read", "not read: 1 empty file (b.txt)"]
    assert list(read_documents([tmp_path])) == ["One."]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(StoriesError, match=r"not read: 1 empty file \(b\.txt\)"):
        list(read_documents([tmp_path]))


def test_what_is_not_read_is_counted_and_named(tmp_path):
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.txt").write_bytes(FRENCH.encode("cp1252"))
    for name in ("c.jpg", "d.jpg", "e.odt", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0")
    inside = contents(tmp_path)
    assert [path.name for path in inside.read] == ["a.txt", "b.txt"]
    assert list(remarks([tmp_path])) == [
        f"{tmp_path}: 2 files read",
        "not read: e.odt: save as .txt",
        "not read: 2 .jpg files (c.jpg, d.jpg), 1 hidden file (such as .DS_Store)",
        "b.txt in cp1252 and not UTF-8: converted",
    ]


def test_documents_are_not_read_without_their_library(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.docx").write_bytes(b"PK")
    monkeypatch.setitem(documents.READERS, ".docx", "no_such_library")
    assert [path.name for path in contents(tmp_path).read] == ["a.txt"]
    assert any(
        "b.docx: pip install no_such_library for .docx, or save as .txt" in line
        for line in remarks([tmp_path])
    )
    with pytest.raises(StoriesError, match="needs a library"):
        list(read_documents([tmp_path / "b.docx"]))


def test_lines_that_most_files_share_are_pointed_out(tmp_path):
    for number in range(6):
        licence = "This work is licensed to all.\nYou may copy it as you like.\n" if number < 4 else ""
        (tmp_path / f"{number}.txt").write_text(f"{licence}Tom saw {number} birds in the tree.\n")
    last = list(remarks([tmp_path]))[-1]
    assert "stands in 4 of 6 files and 1 more lines like it" in last and "licensed" in last
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"Tom saw {number} birds in the tree.\n")
    assert len(list(remarks([tmp_path]))) == 1


def test_a_web_page_is_read_without_its_menu_and_scripts(tmp_path):
    pytest.importorskip("bs4")
    page = """<html><head><title>No</title><style>p {}</style></head><body><nav>Menu</nav><h1>The <i>Frog</i></h1>
    <p>Once upon\n a time.</p><script>no()</script><p>He said &ldquo;No&rdquo;.<br>And left.</p></body></html>"""
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    assert list(read_documents([tmp_path])) == ["The Frog\n\nOnce upon a time.\n\nHe said “No”.\n\nAnd left."]


def test_a_word_processor_file_is_one_story(tmp_path):
    docx = pytest.importorskip("docx")
    file = docx.Document()
    for paragraph in ("Once upon a time.", "", "The end."):
        file.add_paragraph(paragraph)
    file.save(tmp_path / "a.docx")
    assert list(read_documents([tmp_path])) == ["Once upon a time.\n\nThe end."]


def test_a_book_is_read_part_by_part_in_its_order(tmp_path):
    pytest.importorskip("bs4")
    with zipfile.ZipFile(tmp_path / "a.epub", "w") as book:
        book.writestr(
            "META-INF/container.xml",
            '<?xml version="1.0"?><container><rootfile full-path="in/book.opf"/></container>',
        )
        book.writestr(
            "in/book.opf",
            '<package><manifest><item id="b" href="z.xhtml"/><item id="a" href="y.xhtml"/></manifest>'
            '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>',
        )
        book.writestr("in/y.xhtml", "<body><p>Two.</p></body>")
        book.writestr("in/z.xhtml", "<body><p>One.</p></body>")
    assert list(read_documents([tmp_path / "a.epub"])) == ["One.", "Two."]


@pytest.mark.parametrize("suffix", [".docx", ".epub", ".pdf"])
def test_a_damaged_document_is_one_line(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"not what it says")
    if not documents.readable(suffix):
        pytest.skip("its library is not installed")
    with pytest.raises(StoriesError, match=rf"cannot be read as {suffix}"):
        list(read_documents([path]))


@pytest.mark.parametrize(
    ("before", "left_out"),
    [
        ("---\ntitle: The fox\ntags:\n  - old\n- new\n---\n", True),
        ("---\r\n# of the site\ndate: 2024-01-01\r\n...\r\n", True),
        ('+++\ntitle = "The fox"\n[extra]\n+++\n', True),
        ("---\nTom sat down. He said nothing.\n---\n", False),
        ("---\n\n- a fox\n- a bird\n---\n", False),
        ("---\ntitle: never ended\n", False),
        ("---\n" + "key: value\n" * 600 + "---\n", False),
        ("Tom.\n---\ntitle: The fox\n---\n", False),
    ],
)
@pytest.mark.parametrize("separator", ["auto", "file", "line", "blank-line"])
def test_front_matter_of_markdown_is_no_story(tmp_path, before, left_out, separator):
    text = before + "\nTom saw a fox."
    for name in ("a.md", "b.markdown", "c.txt"):
        (tmp_path / name).write_bytes(text.encode())

    def read(name):
        return list(read_documents([tmp_path / name], separator=separator))

    assert read("a.md") == read("b.markdown")
    assert read("a.md") == (["Tom saw a fox."] if left_out else read("c.txt"))
    assert any("2 files begin with front matter" in line for line in remarks([tmp_path])) == left_out


def test_a_page_of_front_matter_alone_is_an_empty_file(tmp_path):
    (tmp_path / "a.md").write_text("---\ntitle: All stories\n---\n")
    (tmp_path / "b.md").write_text("---\ntitle: One\n---\nTom saw a fox.\n")
    (tmp_path / "c.txt").write_text(" \n")
    assert list(read_documents([tmp_path])) == ["Tom saw a fox."]
    assert "not read: 2 empty files (a.md, c.txt)" in list(remarks([tmp_path]))


def test_files_are_named_by_a_pattern_as_a_folder_without_texts_says(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.py").write_text("one = 1\n")
    (tmp_path / "in" / "b.py").write_text("two = 2\n")
    (tmp_path / "in" / "__init__.py").touch()
    (tmp_path / "c.jpg").write_bytes(b"\0")
    pattern = f"{tmp_path}/**/*.py"
    with pytest.raises(StoriesError, match=r"reads the \.py files as text") as refused:
        list(read_documents([tmp_path]))
    assert f"--data '{pattern}'" in str(refused.value)
    assert list(read_documents([pattern])) == ["one = 1", "two = 2"]
    assert list(remarks([pattern])) == [f"{pattern}: 2 files read"]
    (tmp_path / "in" / "b.py").unlink()
    with pytest.raises(StoriesError, match=rf"--data '{tmp_path}/\*\.py' reads"):
        list(read_documents([tmp_path]))
    with pytest.raises(StoriesError, match="does not exist"):
        list(read_documents([f"{tmp_path}/*.rs"]))


def test_files_are_looked_up_once_for_what_is_said_of_them(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("One.")
    looked = []
    monkeypatch.setattr(folder, "matching", lambda path: looked.append(path) or matching(path))
    monkeypatch.setattr(folder, "contents", lambda path: looked.append(path) or contents(path))
    pattern = tmp_path / "*.txt"
    assert list(remarks([pattern, tmp_path])) == [f"{pattern}: 2 files read", f"{tmp_path}: 2 files read"]
    assert looked == [pattern, tmp_path]


def test_tables_of_a_folder_are_read_by_a_pattern(tmp_path):
    (tmp_path / "a.csv").write_text("text\nOne.\n")
    with pytest.raises(StoriesError, match=rf"--data '{tmp_path}/\*\.csv' reads the \.csv files$"):
        list(read_documents([tmp_path]))
    assert list(read_documents([f"{tmp_path}/*.csv"])) == ["One."]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("One.")
    (tmp_path / "a1.txt").write_text("Two.")
    assert list(read_documents([tmp_path / "a[1].txt"])) == ["One."]
