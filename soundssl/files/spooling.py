"""Spooling: how featurize writes a features file, so that no interruption costs or changes anything.

While it runs, raw frames and a journal lie in `OUTPUT.parts/`; the HDF5 file is laid out once, at the end, clips sorted
by key. So its bytes depend neither on the order in which workers finish nor on interruptions, nor on what was taken
over from an earlier output.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from soundssl import SoundsslError, __version__
from soundssl.files.copying import Stretch, copy_frames, read_rows
from soundssl.files.features import Features
from soundssl.files.outputs import Lock, Unusable, alone, naming, text
from soundssl.files.reading import FormatError, open_checked, strings
from soundssl.files.writing import create

JOURNAL = "journal.jsonl"  # within OUTPUT.parts/
WRITTEN = re.compile(r"worker-[\w-]+-[0-9a-f]{12}\.(frames|images)|vectors")  # what else a run writes there
ENCODE = json.JSONEncoder(default=str).encode  # json.dumps would make an encoder for every line
# Optional columns of numbers: their type, and what stands there for a clip that does not say.
TRACKS = {"track": ("i1", -1), "processor": ("i1", -1), "level": ("f4", 0)}
ON_SCREEN = {"onscreen": ("f4", -1)}  # where any clip says it
HEARD = {"peak": ("f4", 0), "clipped": ("i8", 0), "truncated": ("u1", 0)}
ROWS = ("frames", "images")
FINISHED = "finished"  # the journal's last key, when the output is about to stand
ENTRIES = 2  # version of the journal's entries: those of another are not gone on from


def spool_folder(output: str | os.PathLike) -> Path:
    """Return the folder in which an unfinished output lies."""
    return Path(output).with_name(Path(output).name + ".parts")


def remove_spool(folder: Path) -> None:
    """Remove what a run wrote into a spool, its journal last: it says of what is left there what it was for.

    What somebody else put there stays, and so does the folder then.
    """
    for path in folder.iterdir():
        if WRITTEN.fullmatch(path.name) and not path.is_dir():
            path.unlink()
    (folder / JOURNAL).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def claim(folder: Path) -> None:
    """Make the folder of an unfinished output, or take over that of an earlier run; raise Unusable for another's."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise Unusable(f"{text(folder)} is in the way, and no folder of an interrupted run; move it away")
    folder.mkdir(exist_ok=True)
    journal, others = folder / JOURNAL, [path.name for path in folder.iterdir() if path.name != JOURNAL]
    if journal.is_symlink() or (journal.exists() and not journal.is_file()):
        raise Unusable(f"{text(journal)} is no file of an interrupted run; move it away")
    if others and not (_is_journal(journal) or (journal.is_file() and all(map(WRITTEN.fullmatch, others)))):
        raise Unusable(
            f"{text(folder)} holds {text(min(others))}, and no journal of an interrupted run; move it away, or name "
            f"another output"
        )


def _is_journal(path: Path) -> bool:
    """Return whether the first line of a file is that of a journal."""
    try:
        with open(path, "rb") as file:
            first = json.loads(file.readline(1 << 20))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and "made_from" in first


def clear_finished(output: str | os.PathLike, made_from: str) -> None:
    """Remove the spool of a finished output, left by a run that was killed between writing it and clearing up."""
    folder = spool_folder(output)
    journal = folder / JOURNAL
    if not journal.is_file():
        return
    with contextlib.suppress(SoundsslError), alone(output):  # or another run is at work there
        last = journal.read_bytes().splitlines()[-1:]
        if last in ([json.dumps({key: made_from}).encode()] for key in ("made_from", FINISHED)):
            remove_spool(folder)


class Spool:
    """Keep raw frames and images in one worker's files below `OUTPUT.parts/`, to be laid out at the end."""

    def __init__(self, folder: str | os.PathLike, name: str, dtype: str) -> None:
        # A name of its own: the workers of a run that was killed may still be writing to theirs.
        self.dtype, self.name = np.dtype(dtype), f"{name}-{uuid.uuid4().hex[:12]}"
        paths = [Path(folder) / f"{self.name}.{rows}" for rows in ROWS]
        self.files = [open(path, "xb", buffering=0) for path in paths]  # noqa: SIM115
        self.first = [0, 0]

    def _append(self, rows: int, data: memoryview) -> None:
        file = self.files[rows]
        self.end[rows] += len(data)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from error

    def start(self) -> None:
        """Begin an input, and its first clip: remember where their frames and images will lie."""
        self.begun, self.end = self.first, list(self.first)
        self.count = [0, 0]

    def add_frames(self, frames: np.ndarray) -> None:
        """Append frames of the clip. Shape: `[n, bands]`."""
        self._append(0, np.ascontiguousarray(frames, self.dtype).reshape(-1).view(np.uint8).data)
        self.count[0] += len(frames)

    def add_images(self, images: np.ndarray) -> None:
        """Append images of the clip. Shape: `[n, height, width, 3]`, uint8."""
        self._append(1, np.ascontiguousarray(images, np.uint8).reshape(-1).data)
        self.count[1] += len(images)

    def finish(self) -> dict:
        """Begin the next clip, and return where this one lies, for the journal."""
        clip = {"spool": self.name, "first": self.first, "end": self.end, "count": self.count}
        self.first, self.end, self.count = self.end, list(self.end), [0, 0]
        return clip

    def drop(self) -> None:
        """Drop what was written of the clip, and begin it again."""
        for file, first in zip(self.files, self.first, strict=True):
            file.truncate(first)
            file.seek(first)
        self.end, self.count = list(self.first), [0, 0]

    def abandon(self) -> None:
        """Drop all clips of the input."""
        self.first = self.begun
        self.drop()


class Store:
    """Collect clips for one features file in `OUTPUT.parts/`; a journal says which are done, so a run can be repeated.

    The folder is kept when the run is interrupted with the same `made_from`, and begun afresh when that differs.
    Raises SoundsslError while another run writes the same output.
    """

    def __init__(self, output: str | os.PathLike, attributes: dict, dtype: str, made_from: str) -> None:
        self.output, self.attributes, self.dtype, self.made_from = Path(output), attributes, dtype, made_from
        self.folder = spool_folder(output)
        self.lock = Lock(output)
        try:
            claim(self.folder)
        except BaseException:
            self.lock.release()
            raise
        self.journal = open(self.folder / JOURNAL, "a+", encoding="utf-8")  # noqa: SIM115 (open until `close`)
        self.forgotten: list[str] = []  # what differs from an unfinished run that cannot go on
        self.done = self._read()
        if not self.done:
            self.journal.truncate(0)
            for spool in self.folder.iterdir():
                if WRITTEN.fullmatch(spool.name):
                    spool.unlink()
            self._line({"entries": ENTRIES, "made_from": made_from, "attributes": attributes, "dtype": dtype})

    def _read(self) -> dict[str, dict]:
        """Return what the journal says is done, nothing where it is another run's or damaged; cut off a broken line."""
        self.journal.seek(0)
        try:
            lines = self.journal.read().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            entries = [json.loads(line) for line in whole]
        except ValueError:
            return {}
        before = entries[0] if entries else {}
        if (before.get("entries"), before.get("made_from")) != (ENTRIES, self.made_from):
            self.forgotten = _compare(before.get("attributes", {}), self.attributes)
            self.forgotten += _compare({"dtype": before.get("dtype")}, {"dtype": self.dtype}) if before else []
            return {}
        self.journal.truncate(sum(len(line.encode()) for line in whole))
        size = {path.name: path.stat().st_size for path in self.folder.glob("worker-*")}
        return {entry["key"]: entry for entry in entries[1:] if "key" in entry and _is_spooled(entry, size)}

    def _line(self, entry: dict) -> None:
        with naming(self.folder / JOURNAL):
            self.journal.write(ENCODE(entry) + "\n")
            self.journal.flush()

    @staticmethod
    def begin_afresh(output: str | os.PathLike) -> None:
        """Forget what an interrupted run left for `output`; raise SoundsslError while another run writes it."""
        journal = spool_folder(output) / JOURNAL
        if journal.is_file():
            with alone(output):
                os.truncate(journal, 0)

    def close(self) -> None:
        """Let go of the folder; what is in it stays, for the run that goes on."""
        self.journal.close()
        self.lock.release()

    def discard(self) -> None:
        """Give up: remove the folder."""
        self.journal.close()
        try:
            remove_spool(self.folder)
        finally:
            self.lock.release()

    def keep(self, sources: Mapping[str, str]) -> None:
        """Forget every entry whose input is no longer what `sources` (digest by key) says."""
        self.done = {key: entry for key, entry in self.done.items() if entry.get("made_from") == sources.get(key)}

    def adopt(self, sources: Mapping[str, str]) -> int:
        """Take over from the finished output what was made of inputs that are as `sources` says; return how many.

        Its frames stay where they are until the new file is laid out.
        """
        wanted = {digest: key for key, digest in sources.items() if key not in self.done}
        found: dict[str, dict] = {}
        for entry in read_entries(self.output):
            key = wanted.get(entry["made_from"])
            if key is not None and "reason" in entry:
                found[key] = {**entry, "key": key}
            elif key is not None:
                found.setdefault(key, {"key": key, "made_from": entry["made_from"], "spans": []})
                found[key]["spans"].append(entry)
        self.done |= found
        return len(found)

    def add(self, entry: dict) -> None:
        """Note by its `key` a finished clip (`spool`, `first`, `count`), several (`spans`), or why none (`reason`)."""
        self._line(entry)
        self.done[entry["key"]] = entry

    def clips(self, keys: Iterable[str]) -> list[dict]:
        """Return the clips made of inputs, sorted by key; spans of a recording lie in the order of their beginnings."""
        made = []
        for entry in map(self.done.__getitem__, keys):
            spans = entry.get("spans", [] if "reason" in entry else [entry])
            made += [{"made_from": entry.get("made_from", ""), **span} for span in spans]
        return sorted(made, key=lambda clip: order(clip["key"]))

    def skipped(self, keys: Iterable[str]) -> list[dict]:
        """Return the entries of inputs that gave no clip, sorted by path."""
        entries = [entry for key in keys if "reason" in (entry := self.done[key])]
        return sorted(entries, key=lambda entry: entry["path"])

    def lay_out(
        self,
        keys: Sequence[str],
        inputs: list[dict],
        image_shape: tuple[int, int],
        command: str | None,
        made_from: str | None = None,
    ) -> list[dict]:
        """Write the features file from the journal's clips, sorted by key, and remove the folder; return the clips."""
        made_from = self.made_from if made_from is None else made_from
        clips = self.clips(keys)
        with create(
            self.output,
            "features",
            inputs=inputs,
            made_from=made_from,
            attributes=self.attributes,
            command=command,
        ) as sink:
            shape = sum(clip["count"][0] for clip in clips), *self._frame_shape()
            mean, deviation = copy_frames(
                sink, "frames", self._stretches(clips, 0, self._frame_bytes()), shape, self.dtype
            )
            sink.write("mean", mean)
            sink.write("deviation", deviation)
            if any(clip["count"][1] for clip in clips):
                self._copy_images(sink, clips, image_shape)
            write_table(sink, clips, self.skipped(keys))
            self._line({FINISHED: made_from})
        self.discard()
        return clips

    def _frame_shape(self) -> tuple[int, ...]:
        return () if self.attributes["representation"] == "waveform" else (self.attributes["bands"],)

    def _frame_bytes(self) -> int:
        return self.attributes["bands"] * np.dtype(self.dtype).itemsize

    def frames_of(self, key: str) -> Iterator[np.ndarray]:
        """Yield the frames of a finished input again, block by block. Shape: `[n, bands]`, or `[n]` of a waveform."""
        size = self._frame_bytes()
        for block in read_rows(self._stretches(self.clips([key]), 0, size), size):
            yield np.frombuffer(bytes(block), self.dtype).reshape(-1, *self._frame_shape())

    def images_of(self, key: str, shape: tuple[int, int]) -> np.ndarray:
        """Return the images of a finished input, of this height and width, as a memory map. Shape: `[n, …, 3]`."""
        (clip,) = self.clips([key])
        path, at, size = next(self._stretches([clip], 1, shape[0] * shape[1] * 3))
        shown = (clip["count"][1], *shape, 3)
        return np.memmap(path, np.uint8, "r", at, shown) if size else np.empty(shown, np.uint8)

    def _stretches(self, clips: Iterable[dict], rows: int, row_bytes: int) -> Iterator[Stretch]:
        """Yield where the frames (rows 0) or images (1) of clips lie."""
        for clip in clips:
            path = self.folder / f"{clip['spool']}.{ROWS[rows]}" if "spool" in clip else Path(clip["file"])
            yield path, clip["first"][rows], clip["count"][rows] * row_bytes

    def _copy_images(self, sink, clips: list[dict], shape: tuple[int, int]) -> None:
        height, width = shape
        sink.reserve("images", (sum(clip["count"][1] for clip in clips), height, width, 3), "u1")
        row = 0
        size = height * width * 3
        for block in read_rows(self._stretches(clips, 1, size), size):
            row = sink.fill("images", row, np.frombuffer(block, np.uint8).reshape(-1, height, width, 3))
        sink.write("clip/image_offset", _offsets([clip["count"][1] for clip in clips]))


def _is_spooled(entry: dict, size: Mapping[str, int]) -> bool:
    """Return whether the spools are as long as an entry says: a machine that crashed may have lost their ends."""
    return all(
        size.get(f"{clip['spool']}.{rows}", -1) >= end
        for clip in entry.get("spans", [entry])
        if "spool" in clip
        for rows, end in zip(ROWS, clip["end"], strict=True)
    )


def differences(path: str | os.PathLike, attributes: Mapping[str, object], dtype: str) -> list[str]:
    """Return in words how a finished features file was made otherwise than with these attributes and number type."""
    with open_checked(path, ["features"]) as file:
        before = {**file.attrs, "dtype": file["frames"].dtype.str[1:]}
    return _compare(before, {**attributes, "dtype": np.dtype(dtype).str[1:], "soundssl": __version__})


def _compare(before: Mapping, now: Mapping) -> list[str]:
    """Return `name now instead of before` for each value that differs, of what both know."""
    return [f"{name} {now[name]} instead of {before[name]}" for name in now if before.get(name, now[name]) != now[name]]


def order(key: str) -> tuple[str, float, str]:
    """Return what clips are sorted by: `a.wav@9-12` comes before `a.wav@10-20`, and after `a.wav`.

    >>> sorted(["a@10-20", "b", "a@9-12", "a"], key=order)
    ['a', 'a@9-12', 'a@10-20', 'b']
    """
    name, at, span = key.rpartition("@")
    try:
        return (name, float(span.partition("-")[0]), key) if at else (key, -1.0, key)
    except ValueError:
        return key, -1.0, key


def write_table(sink, clips: Sequence[dict], skipped: Sequence[dict]) -> None:
    """Write the columns that say of each clip and each skipped input what it is."""
    sink.write("clip/offset", _offsets([clip["count"][0] for clip in clips]))
    for name in ("key", "recording", "split", "source"):
        sink.write(f"clip/{name}", [clip[name] for clip in clips])
    sink.write("clip/start", np.array([clip["start"] for clip in clips], "f8"))
    row = {clip["key"]: i for i, clip in enumerate(clips)}
    sink.write("clip/parent", np.array([row.get(clip.get("parent"), -1) for clip in clips], "i4"))
    heard = HEARD if all("peak" in clip for clip in clips) else {}
    seen = ON_SCREEN if any("onscreen" in clip for clip in clips) else {}
    for name, (dtype, none) in {**TRACKS, **heard, **seen}.items():
        sink.write(f"clip/{name}", np.array([clip.get(name, none) for clip in clips], dtype))
    if any("parent" in clip for clip in clips):
        sink.write("clip/silent", np.array([clip.get("silent", 0) for clip in clips], "u1"))
    sink.write("clip/made_from", [clip.get("made_from", "") for clip in clips])
    sink.write("skipped/path", [entry["path"] for entry in skipped])
    sink.write("skipped/reason", [entry["reason"] for entry in skipped])
    sink.write("skipped/made_from", ["" if entry.get("passing") else entry.get("made_from", "") for entry in skipped])


def read_entries(path: str | os.PathLike) -> list[dict]:
    """Return what a journal would say of the clips and of the skipped inputs of a finished features file.

    Raises FormatError where its frames lie in other files.
    """
    source = Features(path)
    with open_checked(path, ["features"]) as file:
        position = [_position(path, file, name) for name in ROWS]
        columns = {name.removeprefix("clip/"): column(file, name) for name in map("clip/".__add__, file["clip"])}
        skipped = {name: list(column(file, f"skipped/{name}")) for name in file["skipped"]}
    images = source.image_offset if source.image_offset is not None else np.zeros(len(source.clips) + 1, np.int64)
    found = []
    for i, key in enumerate(source.clips.key):
        clip = {name: values[i] for name, values in columns.items() if len(values) == len(source.clips)}
        clip = {name: value.item() if isinstance(value, np.generic) else value for name, value in clip.items()}
        bounds = [(int(source.offset[i]), int(source.offset[i + 1])), (int(images[i]), int(images[i + 1]))]
        if clip["parent"] < 0:
            clip = {
                name: value for name, value in clip.items() if name not in ("parent", "silent", *TRACKS, *ON_SCREEN)
            }
        else:
            clip["parent"] = source.clips.key[clip["parent"]]
        first = [at + low * row for (at, row), (low, _) in zip(position, bounds, strict=True)]
        about = {"key": key, "file": os.path.abspath(path), "first": first}
        found.append({"made_from": "", **clip, **about, "count": [high - low for low, high in bounds]})
    missing = [""] * len(skipped["path"])
    for name, reason, digest in zip(skipped["path"], skipped["reason"], skipped.get("made_from", missing), strict=True):
        found.append({"path": name, "reason": reason, "made_from": digest})
    return found


def _position(path, file, name: str) -> tuple[int, int]:
    """Return where the rows of a dataset begin in its file, and how many bytes one takes."""
    if name not in file or not file[name].size:
        return 0, 0
    if (at := file[name].id.get_offset()) is None:
        raise FormatError(f"{text(path)} has its {name} in other files; take the parts it was joined from")
    return at, file[name][:1].nbytes


def column(file, name: str) -> np.ndarray:
    """Return a whole column of an open file, strings as objects."""
    return strings(file, name) if file[name].dtype.kind == "O" else file[name][:]


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
