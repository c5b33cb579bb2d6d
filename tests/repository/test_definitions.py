"""docs/definitions.md: no claim without a block that runs. ``test_site.py`` runs them."""

import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "definitions.md"


def test_every_section_shows_what_it_says():
    """No table of claims without an assertion, but for the list of files at the end."""
    text = PAGE.read_text()
    assert len(re.findall(r"^```python\n", text, re.MULTILINE)) > 12
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        assert "assert" in section or title == "What was read", title
