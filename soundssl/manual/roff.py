"""Text for roff: what the manual pages are written in. Everything returned is roff; everything taken is plain text."""

from __future__ import annotations

import re

import soundssl


def escape(text: str) -> str:
    """Write text for roff: what it would take for its own, and everything outside ASCII, as named characters.

    >>> escape(".5 → --no-x")
    '\\\\&.5 \\\\[u2192] \\\\-\\\\-no\\\\-x'
    """
    named = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
    written = "".join(named.get(c, c if ord(c) < 128 else f"\\[u{ord(c):04X}]") for c in text)
    return f"\\&{written}" if written.startswith(".") else written


def bold(text: str) -> str:
    """Set in bold."""
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    """Set in italics, as what a reader replaces."""
    return f"\\fI{escape(text)}\\fR"


def prose(text: str) -> str:
    """Write running text; options in it are bold."""
    pieces = re.split(r"(?<![\w-])(--[a-z][a-z-]*)", text)
    return "".join(bold(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def section(title: str, *lines: str) -> list[str]:
    """Write a section, nothing where it would be empty."""
    return [f'.SH "{escape(title.upper())}"', *lines] if lines else []


def paragraphs(texts: list[str]) -> list[str]:
    """Write paragraphs of running text."""
    return [line for text in texts for line in (".PP", prose(text))]


def entry(term: str, *texts: str) -> list[str]:
    """Write a term that is roff already, and what is to be said about it."""
    first, *others = texts
    return [".TP", term, prose(first), *(line for text in others for line in (".IP", prose(text)))]


def verbatim(lines: list[str]) -> list[str]:
    """Write command lines as they are typed."""
    return [piece for line in lines for piece in (".PP", ".in +4n", ".EX", escape(line), ".EE", ".in")]


def page(name: str, number: int, body: list[str]) -> str:
    """Put the title line over a page. The date is left empty: a page depends on nothing but the code."""
    title = f'.TH "{escape(name.upper())}" {number} "" "soundssl {soundssl.__version__}" "soundssl manual"'
    origin = '.\\" Made by python -m soundssl.manual; do not edit.'
    return "\n".join([origin, title, ".nh", ".ad l", *body]) + "\n"
