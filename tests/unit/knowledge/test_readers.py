"""Readers: what a format says, where it says it, and what is no document."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from symbi.errors import InputError
from symbi.knowledge.chunks import MOST_CHARS, chunks_of
from symbi.knowledge.extracted import MAX_HEADING_CHARS, MAX_TITLE_CHARS, BlockKind
from symbi.knowledge.readers import kind_of, read_document


def headings(data, name):
    _, extracted = read_document(data, name)
    return [block.heading for block in extracted.blocks if block.kind is BlockKind.HEADING]


def pieces(data, name):
    _, extracted = read_document(data, name)
    return [(chunk.headings, extracted.text[chunk.start : chunk.end]) for chunk in chunks_of(extracted)]


def pdf(*pages):
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
        font = DictionaryObject(
            {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
             NameObject("/BaseFont"): NameObject("/Helvetica")}
        )  # fmt: skip
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        page[NameObject("/Contents")] = writer._add_object(stream)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_markdown_has_its_headings_and_leaves_out_its_head():
    data = b"---\nowner: x\n---\n# Top\n\nHello *world*.\n\n## Sub\n\n- a\n- b\n\n```\n# no heading\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert pieces(data, "a.md") == [
        (("Top",), "Hello *world*."),
        (("Top", "Sub"), "- a\n- b\n\n```\n# no heading\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
    ]


def test_html_says_what_a_reader_sees():
    data = (
        b"<html><head><title>T</title><style>x{}</style></head><body><h1>Hi <b>you</b></h1><!-- no --><p>one <i>two</i>"
        b"<script>evil()</script><div hidden>no</div><p style='display: none'>no</p><pre>a\n  b</pre><table><tr><td>1<td>2</table>"
    )
    _, extracted = read_document(data, "a.html")
    assert extracted.title == "T"
    assert extracted.text == "Hi you\n\none two\n\na\n  b\n\n1 2"


def test_pdf_has_its_pages():
    data = pdf("The first page", "The second page")
    assert pieces(data, "a.pdf") == [(("page 1",), "The first page"), (("page 2",), "The second page")]


def test_an_encrypted_pdf_is_refused():
    writer = PdfWriter(clone_from=io.BytesIO(pdf("secret")))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(InputError, match="encrypted"):
        read_document(out.getvalue(), "a.pdf")


def test_json_says_of_each_value_what_it_is():
    data = b'{"title": "x", "server": {"ports": [1, 2], "tls": {"min": null}}}'
    assert pieces(data, "a.json") == [((), "title: x"), (("server",), "ports: 1, 2\ntls.min: null")]
    assert pieces(b'{"name": "n", "v": 1}\n{"v": 2}\n', "a.jsonl") == [(("n",), "name: n\nv: 1"), (("line 2",), "v: 2")]


def test_csv_says_of_each_cell_its_column():
    assert pieces(b"name;age\nada;36\nbob;4\n", "a.csv") == [((), "name: ada; age: 36\nname: bob; age: 4")]


def test_code_is_cut_at_its_definitions():
    data = b"import x\n\n@d\ndef f():\n    pass\n\nclass C:\n    def m(self):\n        pass\n"
    assert headings(data, "a.py") == ["f", "C", "C.m"]
    assert headings(b"package p\n\nfunc Run(x int) error {\n}\n\ntype T struct {\n}\n", "a.go") == ["Run", "T"]
    assert headings(b"def broken(:\n\ndef f():\n", "a.py") == ["broken", "f"]


def test_a_page_that_says_a_name_of_a_file_is_a_page():
    assert pieces(b"notes/of-march.html", "a.html") == [((), "notes/of-march.html")]


def test_a_heading_is_a_chunk_only_where_nothing_stands_below_it():
    data = b"# Disk full\n## Symptoms\nNo space.\n## Later\n# Net\n"
    assert pieces(data, "a.md") == [
        (("Disk full", "Symptoms"), "No space."),
        (("Disk full", "Later"), "## Later"),
        (("Net",), "# Net"),
    ]


def test_manual_pages_have_headings():
    data = b"NAME\n    ls - list\n\nDESCRIPTION\n    foo\n\n    bar\n\nTitle\n=====\nbody\n"
    assert headings(data, "ls.1.txt") == ["NAME", "DESCRIPTION", "Title"]


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"\x00\x01\x02", "a.txt", "binary"),
        (bytes(range(256)), "a", "binary"),
        (b"%PDF-1.7\nrubbish", "a.pdf", "no whole PDF"),
        (b"[" * 100_000, "a.json", "nested too deeply"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "a.json", "nested deeper"),
        (b"{", "a.json", "no JSON"),
        (b"9" * 10_000, "a.json", "no JSON"),
        (b'a,b\n"x', "a.csv", "no table"),
        (b"a,b\n" + b"x" * 200_000, "a.csv", "no table"),
        (b"   \n\n ", "a.md", "no text"),
        (b"\xff\xfe\x00", "a.txt", "no utf-16"),
    ],
)
def test_what_is_no_document_says_why(data, name, said):
    with pytest.raises(InputError, match=said):
        read_document(data, name)


def test_the_kind_is_told_by_content_before_name():
    assert kind_of("a", b"%PDF-1.4") == "pdf"
    assert kind_of("a.md", b"%PDF-1.4 is how a PDF begins") == "markdown"
    assert kind_of("a.unknown", b"x") == "text"


def test_what_is_hidden_by_a_style_is_hidden_however_that_is_written():
    styles = (
        "display:none",
        "Display :\n none",
        "display:/**/none",
        "color:red;display:\tnone!important",
        "visibility: collapse",
    )
    parts = "".join(f"<p style='{style}'>evil</p>" for style in styles)
    data = f"<p>seen</p>{parts}<noframes>evil</noframes><datalist><option>evil</option></datalist><p style='color:/*none*/red'>too</p>"
    assert pieces(data.encode(), "a.html") == [((), "seen\n\ntoo")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"\\ud83d": 1}', "?: 1"),
        (b'{"a": {"\\ud83d": "\\ud83d"}}', "a\n?: ?"),
        (b'[{"title": "\\ud83d", "\\ud83d": [1]}]', "?\ntitle: ?\n?: 1"),
    ],
)
def test_half_a_sign_in_json_is_a_question_mark(data, said):
    _, extracted = read_document(data, "a.json")
    assert extracted.text == said
    assert "".join((extracted.text, extracted.title, *(one.heading for one in extracted.blocks))).encode()


def test_markdown_that_is_nested_too_deeply_is_text_and_no_part_is_lost():
    deep = b">" * 200 + b" deep"
    said = b"First.\n\n" + deep + b"\n\n# Head\n\nLast.\n\n[a]: http://example.com\n"
    texts = [text for _, text in pieces(said, "a.md")]
    assert texts == ["First.\n\n" + deep.decode(), "Last."]
    assert [text for _, text in pieces(deep, "a.md")] == [deep.decode()]
    with pytest.raises(InputError, match="no text"):
        read_document(b"---\nowner: x\n---\n", "a.md")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"class " + b"A" * 5_000 + b"\nwords\n", "a.c"),
        (b"def " + b"a" * 5_000 + b"():\n    pass\n", "a.py"),
        (b"[" + b"a" * 5_000 + b"]\nx = 1\n", "a.toml"),
        (b"# " + b"a" * 5_000 + b"\nwords\n", "a.md"),
        (b"<h1>" + b"a" * 5_000 + b"</h1>words", "a.html"),
        (b'{"' + b"a" * 5_000 + b'": [1]}', "a.json"),
        (b"a" * 120 + b"\n===\nwords\n", "a.txt"),
        (b"words", "a" * 5_000 + ".py"),
    ],
)
def test_a_heading_is_short_for_it_stands_above_every_chunk(data, name):
    _, extracted = read_document(data, name)
    assert max((len(block.heading) for block in extracted.blocks), default=0) <= MAX_HEADING_CHARS
    assert len(extracted.title) <= MAX_TITLE_CHARS


@pytest.mark.parametrize(
    ("part", "name"), [(b"a\n\n", "a.txt"), (b"a\n\n", "a.md"), (b"[a]\n", "a.toml"), (b"<p>a", "a.html")]
)
def test_a_document_of_too_many_parts_is_refused(part, name, monkeypatch):
    for module in ("symbi.knowledge.readers", "symbi.knowledge.extracted"):
        monkeypatch.setattr(f"{module}.MAX_BLOCKS", 50)
    read_document(part * 50, name)
    with pytest.raises(InputError, match="more than 50 parts"):
        read_document(part * 51, name)


@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.sampled_from("\n\n# -`|>"), max_size=4000
    )
)
def test_every_chunk_is_a_piece_of_the_text_and_none_is_left_out(text):
    for name in ("a.md", "a.txt", "a.py", "a.csv", "a.html"):
        try:
            _, extracted = read_document(text.encode(), name)
        except InputError:
            continue
        chunks = chunks_of(extracted)
        assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
        covered = set()
        for chunk in chunks:
            assert 0 <= chunk.start < chunk.end <= len(extracted.text)
            assert chunk.end - chunk.start <= MOST_CHARS
            covered |= set(range(chunk.start, chunk.end))
        for block in extracted.blocks:
            if block.kind is BlockKind.HEADING:
                below = any(block.heading in chunk.headings for chunk in chunks if chunk.start >= block.end)
                assert below or block.start in covered, "each heading stands above something, or by itself"
            else:
                missing = [
                    at for at in range(block.start, block.end) if at not in covered and not extracted.text[at].isspace()
                ]
                assert missing == []
