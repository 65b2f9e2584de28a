"""Reading import files: every way in which people save them, and every way in which they are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from rally_pipeline.rally.entities import Entity
from rally_pipeline.rally.files.problems import FileError
from rally_pipeline.rally.files.sources import MAX_CELL_CHARACTERS, SourceRow, open_source
from rally_pipeline.rally.files.templates import TEMPLATES

HEADERS = TEMPLATES[Entity.COMPANIES].headers


def _read(path: Path, content: bytes | str, *, encoding: str | None = None) -> list[SourceRow]:
    path = path / "file.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_source(path, HEADERS, encoding=encoding) as source:
        return [SourceRow(1, 0, source.headers), *source.rows()]


def _cells(path: Path, content: bytes | str, **options: str) -> list[tuple[str, ...]]:
    return [row.cells for row in _read(path, content, **options)]


PLAIN = [("name", "domain"), ("Bären & Söhne", "b.example"), ("Étoile", "é.example")]


@pytest.mark.parametrize(
    "content",
    [
        "name,domain\nBären & Söhne,b.example\nÉtoile,é.example\n".encode(),
        "name,domain\r\nBären & Söhne,b.example\r\nÉtoile,é.example".encode(),
        "name,domain\rBären & Söhne,b.example\rÉtoile,é.example\r".encode(),
        "\ufeffname,domain\nBären & Söhne,b.example\nÉtoile,é.example\n".encode(),
        "\ufeffname,domain\nBären & Söhne,b.example\nÉtoile,é.example\n".encode("utf-16-le"),
        "\ufeffname,domain\nBären & Söhne,b.example\nÉtoile,é.example\n".encode("utf-16-be"),
        "name;domain\nBären & Söhne;b.example\nÉtoile;é.example\n".encode(),
        "name\tdomain\nBären & Söhne\tb.example\nÉtoile\té.example\n".encode(),
        "name|domain\nBären & Söhne|b.example\nÉtoile|é.example\n".encode(),
        "sep=;\r\nname;domain\r\nBären & Söhne;b.example\r\nÉtoile;é.example\r\n".encode(),
        '"name","domain"\n"Bären & Söhne","b.example"\n"Étoile","é.example"\n'.encode(),
    ],
    ids=[
        "plain",
        "crlf",
        "cr",
        "bom",
        "utf16le",
        "utf16be",
        "semicolon",
        "tab",
        "pipe",
        "sep-hint",
        "quoted",
    ],
)
def test_the_same_rows_are_read_from_every_usual_form(tmp_path: Path, content: bytes) -> None:
    assert _cells(tmp_path, content) == PLAIN


def test_latin_1_is_refused_with_line_and_word_and_read_when_it_is_named(tmp_path: Path) -> None:
    content = "name,domain\nPlain,p.example\nBären & Söhne,b.example\n".encode("cp1252")
    with pytest.raises(
        FileError, match=r"^line 3: .*0xE4 is not UTF-8.*Windows-1252 .* 'Bären'.*--encoding cp1252"
    ):
        _read(tmp_path, content)
    assert _cells(tmp_path, content, encoding="cp1252")[2] == ("Bären & Söhne", "b.example")
    with pytest.raises(FileError, match="'klingon' is not an encoding"):
        _read(tmp_path, content, encoding="klingon")


def test_a_wrong_byte_far_inside_a_large_file_is_found_on_its_line(tmp_path: Path) -> None:
    lines = [f"Company {n},c{n}.example".encode() for n in range(100_000)]
    lines[87_654] = b"Caf\xe9,cafe.example"
    with pytest.raises(FileError, match=r"line 87656.*'Café,cafe"):
        _read(tmp_path, b"name,domain\n" + b"\n".join(lines))


@pytest.mark.fault("V16")
def test_quoted_line_breaks_quotes_and_delimiters_stay_in_their_cell(tmp_path: Path) -> None:
    content = 'name,notes\r\nA,"one\r\ntwo, ""three"""\r\n\r\nB,plain\r\n,\r\nC,last\r\n'
    rows = _read(tmp_path, content)
    assert [row.cells for row in rows[1:]] == [("A", 'one\r\ntwo, "three"'), ("B", "plain"), ("C", "last")]
    # Blank rows count for the row number, as in a spreadsheet; a cell with a line break takes two lines.
    assert [(row.number, row.line) for row in rows[1:]] == [(2, 2), (4, 5), (6, 7)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n  \n\n", "the file is blank"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
        (b"PK\x03\x04 this is no archive", "no readable XLSX file"),
        ('name,notes\nA,"never closed\nB,x\n', "row 2: the file ends inside a quoted cell"),
        ('name,notes\nA,"closed" twice\n', "row 2: text after a closing quote"),
        ("name,notes\n" + "x," * 1_200 + "\n", "row 2: 1,201 cells in one row"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_clear_line(
    tmp_path: Path, content: bytes | str, message: str
) -> None:
    with pytest.raises(FileError) as caught:
        _read(tmp_path, content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.security("26")
def test_an_open_quote_in_a_huge_file_ends_at_the_cap_and_not_in_memory(tmp_path: Path) -> None:
    line = b"B,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
    content = b'name,notes\nA,"never closed\n' + line * (MAX_CELL_CHARACTERS // 50)
    with pytest.raises(FileError, match="row 2: a quoted cell that begins here never ends"):
        _read(tmp_path, content)


@pytest.mark.security("26")
def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="line 2 is longer than"):
        _read(tmp_path, b"name,notes\n" + b"x" * 17_000_000)


@pytest.mark.security("26")
def test_a_nul_character_does_not_stop_the_reader(tmp_path: Path) -> None:
    assert _cells(tmp_path, b"name,domain\nA\x00B,c\n")[1] == ("A\x00B", "c")


def test_reading_keeps_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b"name,domain\n" + b"Some Company Name,company.example\n" * 50_000)
    with open_source(path, HEADERS) as source:
        rows = source.rows()
        assert next(rows).number == 2
        assert sum(1 for _ in rows) == 49_999
