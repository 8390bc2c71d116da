"""Documents that attack whoever reads them: each ends in an error of its own, and the next one is read."""

import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from symbi.adapters.reading import DocumentProcess, ReadingLimits
from symbi.errors import InputError

pytestmark = pytest.mark.anyio

LIMITS = ReadingLimits(time_s=4.0, cpu_s=2, memory_bytes=1 << 29)
HOSTNAME = Path("/etc/hostname").read_text("utf-8").strip()


def facts(reading, name):
    """What the system says of the process."""
    return Path(f"/proc/{reading._process.pid}/{name}").read_text("utf-8")


def bomb():
    """A PDF of some kilobytes whose one page says a gigabyte."""
    stream = zlib.compress(b"BT (x) Tj ET\n" * 20_000_000, 9)
    parts = [
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n",
        b"4 0 obj<</Length %d/Filter/FlateDecode>>stream\n" % len(stream) + stream + b"\nendstream endobj\n",
        b"trailer<</Root 1 0 R>>",
    ]
    return b"".join(parts)


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE html [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">]><html><body>&e;&e;&e;</body></html>"""
FILES = b"""<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/hostname">]><html><body><p>seen &x; seen</p></body></html>"""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bomb.pdf", bomb()),
        ("nested.html", b"<div>" * 150_000 + b"x"),
        ("nested.json", b"[" * 2_000_000),
        ("nested.md", b">" * 30_000 + b" x"),
        ("brackets.md", b"[a](" * 120_000),
        ("binary.txt", os.urandom(100_000)),
        ("long.csv", b"a,b\n" + b"x" * 1_000_000),
        ("wide.csv", b"," * 200_000 + b"\nx"),
        ("cut.pdf", bomb()[:300]),
    ],
)
async def test_it_fails_alone(name, data):
    async with DocumentProcess(LIMITS) as reading:
        try:
            _, extracted = await reading.read(data, name)
        except InputError as error:
            code = error.code
        else:
            assert len(extracted.text) <= len(data) + 1000, "it grew"
            code = "knowledge.read"
        assert code.startswith("knowledge.")
        reading._limits = replace(LIMITS, time_s=60.0)  # what is harmless is read, however slow the machine is
        assert (await reading.read(b"# Fine\n\nThe next one.", "fine.md"))[0] == "markdown"


async def test_entities_neither_grow_nor_read_files():
    async with DocumentProcess(LIMITS) as reading:
        for data in (LAUGHS, FILES):
            try:
                _, extracted = await reading.read(data, "a.html")
            except InputError:
                continue
            assert len(extracted.text) < 10_000
            assert HOSTNAME not in extracted.text


async def test_a_document_that_ends_its_process_or_takes_too_long_is_told_apart_from_the_next():
    async with DocumentProcess(ReadingLimits(time_s=0.5, cpu_s=60, memory_bytes=1 << 30)) as reading:
        await reading.read(b"warm", "a.txt")
        with pytest.raises(InputError) as slow:
            await reading.read(b"[a](" * 200_000, "a.md")
        assert slow.value.code == "knowledge.too_slow"
        await reading.read(b"next", "b.txt")
        process = reading._process
        process.kill()
        await process.wait()
        with pytest.raises(InputError) as killed:
            await reading.read(b"x", "c.txt")
        assert killed.value.code == "knowledge.hostile"
        assert (await reading.read(b"next", "d.txt"))[1].text == "next"


async def test_the_process_can_write_no_file_and_dies_with_its_memory():
    async with DocumentProcess(LIMITS) as reading:
        await reading.read(b"x", "a.txt")
        limits = facts(reading, "limits")
        rows = {line[:26].strip(): line[26:].split()[0] for line in limits.split("\n")[1:] if line}
        assert rows["Max file size"] == "0"
        assert rows["Max address space"] == str(LIMITS.memory_bytes)
        assert rows["Max core file size"] == "0"
        status = facts(reading, "status")
        assert "NoNewPrivs:\t1" in status
        environment = facts(reading, "environ")
        assert "PATH" not in environment
