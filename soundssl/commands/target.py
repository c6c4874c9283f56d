"""The output of a command: guarded before any work, compared with what stands there, and named when it is done."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from soundssl.commands.terminal import Terminal, print_path

if TYPE_CHECKING:
    from soundssl.files.writing import Sink

PIPE = "-"  # standard input or output

# What endings promise: a file of another format under one of them is refused.
PROMISES = {
    **{ending: "HDF5" for ending in (".h5", ".hdf5", ".hdf", ".he5")},
    **{ending: "PyTorch" for ending in (".pt", ".pth", ".ckpt")},
    **{ending: "JSON lines" for ending in (".jsonl", ".ndjson")},
    **{ending: "a pickle" for ending in (".pkl", ".pickle", ".joblib")},
    **{ending: "a spreadsheet" for ending in (".xlsx", ".xls", ".ods")},
    **{ending: "an archive" for ending in (".zip", ".gz", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z")},
    **{ending: "a picture" for ending in (".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".tif", ".tiff", ".bmp")},
    **{ending: "sound" for ending in (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a")},
    **{ending: "video" for ending in (".mp4", ".mkv", ".webm", ".mov", ".avi")},
    **{".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet", ".feather": "Feather", ".arrow": "Arrow"},
    **{".npy": "NPY", ".npz": "NPZ", ".mat": "MATLAB", ".rds": "R", ".json": "JSON", ".txt": "text", ".md": "text"},
    **{".html": "HTML", ".toml": "TOML", ".yaml": "YAML", ".safetensors": "safetensors", ".onnx": "ONNX"},
    **{".png": "PNG", ".sqlite": "SQLite", ".db": "SQLite"},
}


def check_ending(path: Path, *formats: str, option: str = "--output") -> None:
    """Raise BadParameter where the ending of an output promises a format that is none of `formats`, the usual first.

    A name without an ending, or with one that promises nothing here, is taken as it is.
    """
    from soundssl import files

    promised = PROMISES.get(path.suffix.lower())
    if promised is None or promised in formats:
        return
    ending = next(ending for ending, name in PROMISES.items() if name == formats[0])
    told = " or ".join(filter(None, [", ".join(formats[:-1]), formats[-1]]))
    raise typer.BadParameter(
        f"{files.text(path)} would be {told}, not {promised}; name it {files.text(path.with_suffix(ending).name)}",
        param_hint=option,
    )


def provenance_of(no_provenance: bool) -> str | None:
    """Return the command line of this process, quoted for a shell; None where equal runs are to give equal bytes."""
    from soundssl import files

    return None if no_provenance else shlex.join(["soundssl", *(files.text(word) for word in sys.argv[1:])])


@dataclass(frozen=True)
class Target:
    """Hold where a command writes and how: `implied` where the path was not given and is printed at the end."""

    command: str
    path: Path
    implied: bool = False
    force: bool = False
    no_provenance: bool = False
    quiet: bool = False

    @property
    def piped(self) -> bool:
        """Whether the output is standard output."""
        return str(self.path) == PIPE

    @property
    def terminal(self) -> Terminal:
        """What messages and progress of this command go to."""
        return Terminal(self.command, self.quiet)

    def of_process(self, main: bool) -> Target:
        """Return the target of one of several processes: only the main one says anything and prints the path."""
        return self if main else replace(self, implied=False, quiet=True)

    @property
    def provenance(self) -> str | None:
        """The command line that the output carries, None where equal runs are to give equal bytes."""
        return provenance_of(self.no_provenance)

    def stands(self, made_from: str) -> bool:
        """Return whether the output already stands for the same inputs and options; then touch it, and say so."""
        from soundssl import files

        if self.force or self.piped or files.made_from(self.path) != made_from:
            return False
        files.clear_finished(self.path, made_from)
        self.up_to_date()
        return True

    def up_to_date(self) -> None:
        """Touch a finished output, for make, and say that nothing was to be done."""
        from soundssl import files

        os.utime(self.path)
        self.terminal.say(f"{files.text(self.path)} is up to date; --force makes it again")
        self.finish()

    def create(
        self, kind: str, inputs: list[dict], made_from: str, attributes: Mapping[str, object]
    ) -> contextlib.AbstractContextManager[Sink]:
        """Return the context in which a file of this kind is written, whole or not at all."""
        from soundssl import files

        return files.create(
            self.path, kind, inputs=inputs, made_from=made_from, attributes=attributes, command=self.provenance
        )

    def finish(self, summary: str = "") -> None:
        """Say what was made, and print the path of an output whose name was not given, for `$(soundssl …)`."""
        if summary:
            self.terminal.say(summary)
        print_path(self.path, self.implied)


def aim(
    command: str,
    output: Path | None,
    default: Path,
    inputs: Collection[Path],
    *formats: str,
    force: bool = False,
    no_clobber: bool = False,
    no_provenance: bool = False,
    quiet: bool = False,
    through: bool = False,
) -> Target:
    """Return the target of a command; refuse one that cannot be written, or is one of the inputs, before any work.

    `-` is standard output; it, a device and a pipe are refused unless what is written may go `through` them, and a
    terminal unless it is text. An ending that promises what is none of `formats`, the usual one first (HDF5 where none
    is named), is refused; a text that names none says itself what its endings mean. Raises Exists, Unusable,
    BadParameter.
    """
    from soundssl import files

    target = Target(command, output or default, output is None, force, no_provenance, quiet)
    if not target.piped:
        files.guard(target.path, no_clobber, through)
        files.guard_inputs(target.path, [source for source in inputs if str(source) != PIPE])
        if formats or not through:
            check_ending(target.path, *(formats or ("HDF5",)))
    elif sys.stdout.isatty() and not through:
        raise typer.BadParameter("a matrix is not for a terminal; send it to a file or a pipe", param_hint="--output")
    return target
