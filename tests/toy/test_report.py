import base64
import math
import re

import pytest

from pixelclip.toy.report import (
    Commands,
    Figure,
    Heading,
    Paragraph,
    Table,
    to_markdown,
    write_report,
)

TABLE = Table(
    ["class", "before", "after", "gain", "note"],
    [["sea", 12.34, 50.0, 37.66, "a | b"], ["<sky>", math.nan, 20.04, math.nan, ""]],
    percent=(1, 2),
    signed=(3,),
    strong=(1,),
    has_text_at_end=True,
)


@pytest.fixture
def written(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(b"\x89PNG content")
    blocks = [
        Heading("Part <1>"),
        Paragraph("Fish & boats"),
        TABLE,
        Figure("pictures/one.png", 'A "picture"'),
        Commands(["make demo", "echo '<'"]),
    ]
    return write_report(tmp_path, "Title", blocks)


def test_markdown_has_everything_in_order(written):
    text = written[0].read_text()
    parts = [
        "# Title\n\n## Part <1>\n\nFish & boats\n",
        "| class | before | after |  gain | note |\n",
        "| sea   |   12.3 |  50.0 | +37.7 | a \\| b |\n",
        "| <sky> |      - |  20.0 |     - |  |\n",
        '![A "picture"](pictures/one.png)',
        "    make demo\n    echo '<'\n",
    ]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_html_holds_its_pictures_and_escapes_text(written):
    page = written[1].read_text()
    (data,) = re.findall(r'src="data:image/png;base64,(.*?)"', page)
    assert base64.b64decode(data) == b"\x89PNG content"
    assert 'alt="A &quot;picture&quot;"' in page
    assert "<h2>Part &lt;1&gt;</h2>" in page
    assert "<p>Fish &amp; boats</p>" in page
    assert "echo &#x27;&lt;&#x27;</pre>" in page
    assert "http" not in page


def test_html_tables_have_bars_signs_and_strong_rows(written):
    page = written[1].read_text()
    rows = re.findall(r"<tr.*?</tr>", page)
    assert "var(--bar) 12.3%" in rows[0] and "var(--bar) 50.0%" in rows[0]
    assert "+37.7%" not in rows[0] and ">+37.7</td>" in rows[0]
    assert rows[1].startswith('<tr class="strong">')
    assert rows[1].count("var(--bar)") == 1, "there is no bar for what is not known"
    assert '<td class="text">a | b</td>' in rows[0]


def test_a_missing_picture_leaves_the_old_report(written, tmp_path):
    before = [path.read_bytes() for path in written]
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path, "New", [Figure("pictures/two.png", "")])
    assert [path.read_bytes() for path in written] == before


def test_a_table_of_words_needs_nothing_else():
    assert to_markdown(Table(["a", "b"], [["x", "1"]])) == "| a | b |\n| - | --: |\n| x | 1 |\n"
