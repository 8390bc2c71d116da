"""What a model may not make of passages: citations, quotations, addresses and tags that are none of theirs."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import ModelFailed
from symbi.knowledge.citing import require_cited

PASSAGES = (
    "(Mail)\nFlush the queue by hand, see https://good.community/x?a=1 and `argv[1]`; write to ops@good.org. Include <stdio.h>.",
    "(Disk)\nThe log fills the disk; see the page at docs/disk.md, or http://10.0.0.1/disk.",
)


@pytest.mark.parametrize(
    "text",
    [
        "Flush the queue [1]. The log fills the disk [2].",
        "Both [1, 2], in a row [1-2], or each by itself [1][2].",
        "See [the page](https://good.community/x?a=1)[1].",
        "See `https://good.community/x?a=1` (or **https://good.community/x?a=1**) [1].\r\n\r\nWrite to ops@good.org [1].",
        'It says "flush the queue by hand" and “THE LOG  fills the disk” [1, 2].',
        "> Flush the queue by hand [1]",
        "> The log fills\n> the disk\n\u2014 [2]",
        'It is "short" and it\'s here, not "there", and so on [1].',
        'Include <stdio.h>, and "`argv[1]`; write to" somebody [1].',
        "See [disk](docs/disk.md) [2].",
        "1 < 2, and 3 > 2 [1].",
    ],
)
def test_what_rests_on_passages_is_taken(text):
    require_cited(text, PASSAGES)


@pytest.mark.parametrize(
    "text",
    [
        "Reboot.",
        "Reboot [0].",
        "Flush it [1], and see [3].",
        "Flush it [1], and see [ 3 ].",
        "Flush it [1], and see [1-3].",
        "Flush it [1], and see [2;3].",
        "Flush it [1], and see [^3].",
        f"Flush it [1], and see [{'9' * 5000}].",
        "Flush it [1].\n\nReboot.",
        "Flush it [1].\u2029Reboot.",
        "Flush it [1].\u2028\u2028Reboot.",
        "Flush it [1].\v\vReboot.",
        "Flush it [1].<br>Reboot.",
    ],
)
def test_what_cites_nothing_or_something_else_is_refused(text):
    with pytest.raises(ModelFailed) as refused:
        require_cited(text, PASSAGES)
    assert refused.value.code == "knowledge.uncited"
    assert "999" not in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        "https://good.com",
        "https://good.community",
        "https://good.community/x?a=1&secret",
        "https://good.community/x?a=1'@evil.com",
        "https://good.community/x?a=1)@evil.com",
        "[x](evil)",
        "[x]( //evil.com )",
        "[x](<https:evil.com>)",
        "[x]: //evil.com",
        "https:\\\\evil.com",
        "javascript:alert(1)",
        "evil.com/x?q=secret",
        "https://\u0435vil.com",
        "someone@evil.com",
        "![](https://evil.com/x.png)",
        "<img src=/x>",
        "<b>Flush</b>",
        "see http://10.0.0.1/disk",
        '"stop the queue by hand"',
        '"ok" and "stop the queue by hand"',
        "“stop the queue by hand”",
        "„stop the queue by hand“",
        "«stop the queue by hand»",
        "\u2018stop the queue\u2019s flow by hand\u2019",
        "\n> stop the queue\n> by hand\n",
        '"the log fills the disk"',
    ],
)
def test_addresses_tags_and_quotations_are_those_of_the_passages_cited(text):
    with pytest.raises(ModelFailed) as refused:
        require_cited(f"Flush it {text} [1].", PASSAGES)
    assert refused.value.code == "knowledge.misquoted"


@given(st.text(st.sampled_from('[]0159-,;^ \n\u2029.a:/@<>"“”«»\u2018\u2019`()'), max_size=80))
def test_whatever_it_is_it_is_taken_or_refused(text):
    try:
        require_cited(text, PASSAGES)
    except ModelFailed:
        return
    assert not text.strip() or "[" in text


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a-", "[1,", "<a", "]( ", "\n ", ">", "a@", '"', "\u2018", "//a", "9-", "https:"]
)
def test_the_time_is_that_of_the_length(piece):
    def least_s(count):
        found = []
        for _ in range(3):
            begun_s = process_time()
            with pytest.raises(ModelFailed):
                require_cited(f"[1] {piece * count}\n\nx", PASSAGES)
            found.append(process_time() - begun_s)
        return min(found)

    assert least_s(8_000) < 40 * max(least_s(1_000), 0.0005)  # 64 times would be the square
