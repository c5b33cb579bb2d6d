r"""Escapes for names that users gave: one function for each medium.

The name of a run, group, task, metric or file may be any name of a directory or any JSON string:
``_baseline``, ``lr$0.1$``, ``a|b``, ``C:\new``, ``=1+1``, or empty. ``line`` escapes it for a
terminal, ``markdown`` and ``cell`` for Markdown, ``latex`` for LaTeX, ``stem`` for a file name;
``short_paths`` names runs by their paths. Figures use ``figures.style.text``, the page escapes all
text (``page.render``), and its CSV uses ``csvCell`` of ``page.js``.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

NAMELESS = "(no name)"

# Characters that change the writing direction, or end a line.
_MARKS = set("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Escaped in Markdown: some characters always; the start of a tag, an entity or a link; and
# underscores that are not within a word.
_MARKDOWN = re.compile(
    r"[\\`*~$]|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])"
)
# The start of a heading, a quotation or a list.
_BLOCK = re.compile(r"^(\d*)(?=(?<!\d)[#>+=\[-]|(?<=\d)[.)](?:\s|$))")

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
}

# A file name has at most 255 bytes, including a prefix and a suffix.
_LONGEST = 80


def printable(text: str, keep: str = "") -> str:
    r"""Returns text with escapes for control characters and unpaired surrogates.

    >>> printable("a\tb\x1b[0m")
    'a\\tb\\x1b[0m'
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if c not in keep and (unicodedata.category(c) in ("Cc", "Cs") or c in _MARKS)
        else c
        for c in text
    )


def prose(text: str) -> str:
    """Returns text as ``printable`` does, with its line ends."""
    return printable(text, keep="\n")


def line(name: str) -> str:
    r"""Returns a name as one line of printable text, or ``NAMELESS`` if it is blank.

    >>> line("a\nb"), line(" ")
    ('a\\nb', '(no name)')
    """
    return printable(name) if name.strip() else NAMELESS


def lines(names: Sequence[str]) -> list[str]:
    """Returns names as ``line`` does, with numbers that make repeated ones unique.

    >>> lines(["a", "", "a"])
    ['a', '(no name)', 'a (2)']
    """
    unique: dict[str, None] = {}
    for name in map(line, names):
        other, number = name, 1
        while other in unique:
            number += 1
            other = f"{name} ({number})"
        unique[other] = None
    return list(unique)


def markdown(text: str) -> str:
    r"""Returns a line of Markdown that shows text literally.

    >>> print(markdown("# *a*: |r| of tau_1"))
    \# \*a\*: |r| of tau_1
    """
    return _BLOCK.sub(r"\1\\", _inline(text))


def cell(text: str) -> str:
    r"""Returns a cell of a Markdown table that shows text.

    >>> print(cell("a|b"), cell("-0.5"))
    a\|b -0.5
    """
    return _inline(text).replace("|", r"\|")


def latex(text: str) -> str:
    r"""Returns LaTeX that shows text.

    >>> print(latex(r"50% of \a_1"))
    50\% of \textbackslash{}a\_1
    """
    escaped = "".join(_LATEX.get(c, c) for c in printable(text))
    return re.sub(r"-(?=-)", "-{}", escaped)  # Two hyphens would be a dash.


def stem(name: str) -> str:
    """Returns a file name without a suffix; different names have different files.

    >>> stem("tau_1.0"), stem("seed_1/tau_1.0")
    ('tau_1.0', 'seed_1_tau_1.0-eb972eb1')
    """
    safe = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_LONGEST]
    if safe == name and safe.strip("."):
        return name
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _inline(text: str) -> str:
    """Escapes Markdown within a line, and spaces at its ends."""
    text = _MARKDOWN.sub(r"\\\g<0>", printable(text))
    inner = text.strip(" ")
    before, _, after = text.partition(inner) if inner else ("", "", text)
    return before.replace(" ", "&#32;") + inner + after.replace(" ", "&#32;")


def short_paths(paths: Sequence[Path]) -> list[str]:
    """Returns the last parts of paths, as few as make the names unique."""
    depths = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-depth:]) for path, depth in zip(paths, depths, strict=True)]
        repeated = [i for i, name in enumerate(names) if names.count(name) > 1]
        repeated = [i for i in repeated if depths[i] < len(paths[i].parts)]
        if not repeated:
            return names
        for i in repeated:
            depths[i] += 1
