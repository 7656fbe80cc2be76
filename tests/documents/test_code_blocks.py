"""Which blocks are found in a document, and what the comments before them do."""

from pathlib import Path

import pytest

from tests.documents.code_blocks import DATA, PYTHON, SHELL, TEXT, CodeBlock, read_code_blocks


def read(tmp_path: Path, text: str) -> list[CodeBlock]:
    path = tmp_path / "PAGE.md"
    path.write_text(text)
    return read_code_blocks(path)


def test_every_kind_of_block_is_found_with_its_line(tmp_path):
    text = """Words and `inline code`.

    indented

- in a list:

      nested --flag

```python
x = 1
```

```bash
fenced
```

```text
table
```
"""
    blocks = read(tmp_path, text)
    found = [(block.line, block.language, block.code.strip()) for block in blocks]
    assert found == [
        (3, SHELL, "indented"),
        (7, SHELL, "nested --flag"),
        (9, PYTHON, "x = 1"),
        (13, SHELL, "fenced"),
        (17, TEXT, "table"),
    ]
    assert blocks[0].place == "PAGE.md:3"
    assert read_code_blocks(tmp_path / "PAGE.md", "docs/PAGE.md")[0].place == "docs/PAGE.md:3"
    assert not any(block.is_reduced for block in blocks)


def test_a_comment_changes_the_block_after_it_and_no_other(tmp_path):
    text = """<!-- docs-check: replace `--num-gpus 8` by `--num-gpus 1`; replace `; a` by ``;
at the same time; until `done` -->

    train --num-gpus 8; a
    train --num-gpus 8

    train --num-gpus 8

Words.

    train --num-gpus 8
"""
    first, second = read(tmp_path, text)
    assert first.code.split("\n")[:2] == ["train --num-gpus 1", "train --num-gpus 1"]
    assert (first.is_reduced, first.together, first.until) == (True, True, "done")
    assert second.code == "train --num-gpus 8\n"
    assert (second.is_reduced, second.together, second.until) == (False, False, "")


def test_python_and_data_have_comments_of_their_own(tmp_path):
    text = """<!-- docs-check: given model, image -->
```python
model(image)
```

<!-- docs-check: written to `a.yaml` -->

```yaml
name: a
```

<!-- another comment -->

Words.
"""
    python, data = read(tmp_path, text)
    assert python.given == ("model", "image")
    assert not python.is_reduced
    assert (data.language, data.written_to, data.code) == (DATA, "a.yaml", "name: a\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- docs-check: until `x` -->\n\nWords.\n\n    code\n", "PAGE.md:1: .* before no code"),
        ("    code\n\n<!-- docs-check: until `x` -->\n", "PAGE.md:3: .* before no code"),
        ("<!-- docs-check: replace `a` by `b` -->\n\n    code\n", "replaces 'a', which is not"),
        ("<!-- docs-check: skip -->\n\n    code\n", "'skip' is none of"),
        ("<!-- docs-check: -->\n\n    code\n", "is none of"),
        ("<!-- docs-check: given model -->\n\n    code\n", "does not fit a block of shell"),
        ("<!-- docs-check: until `x` -->\n```python\nx\n```\n", "does not fit a block of python"),
        ("<!-- docs-check: replace `x` by `y` -->\n```text\nx\n```\n", "fit a block of text"),
        ("```yaml\nx: 1\n```\n", "PAGE.md:1: say by a comment to which file"),
        ("```ruby\nx\n```\n", "PAGE.md:1: 'ruby' is none of"),
    ],
)
def test_a_comment_or_block_that_makes_no_sense_is_an_error(tmp_path, text, problem):
    with pytest.raises(ValueError, match=problem):
        read(tmp_path, text)
