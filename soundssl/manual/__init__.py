"""Manual pages, made from the commands themselves: `python -m soundssl.manual man/` writes them.

What a page says stands where the command is: name, description and examples in its docstring, options in its
annotations, lists of names in the description tables, files in the schemas, exit statuses in `soundssl.commands`. The
pages carry a version and no date, so that they change only where the command line does.

commands    a page a command, and the overview
files       the page of the file formats
lists       description tables and curricula as sections
parameters  what a command says of itself
roff        the language of manual pages
"""

from __future__ import annotations

from pathlib import Path

from soundssl.manual.commands import command_pages
from soundssl.manual.files import files_page


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {**command_pages(), "soundssl-files.5": files_page()}


def write(folder: Path) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
