"""docs/definitions.md: every Python block on the page runs, in order, and its asserts hold."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "definitions.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_claim_of_the_page_holds(x64):
    """One namespace for the page, as a reader would run it; a failure names its block."""
    names = {}
    assert len(BLOCKS) > 12
    for index, block in enumerate(BLOCKS):
        code = compile(block, f"definitions.md, block {index}:\n{block}", "exec")
        exec(code, names)


def test_every_section_shows_what_it_says():
    """No table of claims without a block that runs, but for the list of files at the end."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        title = section.splitlines()[0]
        assert "assert" in section or title == "What was read", title
