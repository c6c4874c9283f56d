"""Measure what thresholds that detect chooses are worth on recordings that nobody chose them by.

The clips of one fold choose thresholds, as they are or strung into recordings with noise between; the clips of another,
strung so, are listened to. Precision and recall there stand beside what was promised.

    python calibrated.py features.h5 --labels labels.h5 --models 0/model.safetensors 1/model.safetensors \
      --calibrate 4 --test 5 --work work -o calibrated.md
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sections
import soundfile

from soundssl import SoundsslError, device, files, media
from soundssl.detection import job
from soundssl.detection.calibration import at_threshold
from soundssl.embedding import Job
from soundssl.labels import Index, align
from soundssl.media import encoding
from soundssl.model import Model

CLIPS = 5  # in a recording
PAUSE = 1.0, 4.0  # seconds of noise between them
LEVEL = 0.003  # root mean square of the noise, -50 dB re full scale
HOP = 0.48  # seconds between windows
WANTED = {"best F1": None, "precision 0.9": 0.9}
DRAWS = 200  # of recordings, for an interval


class Told(NamedTuple):
    """Hold means over classes: precision and recall that were promised, and found, each with an interval."""

    promised: np.ndarray  # [precision, recall]
    found: np.ndarray  # [precision, recall]
    low: np.ndarray
    high: np.ndarray
    inside: np.ndarray  # classes whose figure lies in its own promised interval
    classes: int


def string(source: files.Features, labels: files.Labels, fold: str, folder: Path, seed: int) -> files.Labels:
    """Write the clips of a fold as recordings with noise between, and return what is heard when in them."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(np.flatnonzero(source.clips.split == fold))
    known = dict(zip(labels.key, labels.label, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    label, key, start, end = [], [], [], []
    for number in range(0, len(rows), CLIPS):
        name, parts, at = f"{number // CLIPS:03}.wav", [], 0.0
        rate = encoding.sound_rate(source.clips.source[rows[number]])
        for row in rows[number : number + CLIPS]:
            noise = generator.normal(0, LEVEL, round(generator.uniform(*PAUSE) * rate)).astype("f4")
            clip = np.concatenate(list(media.read_audio(source.clips.source[row], rate)))
            for sound, said in ((noise, np.zeros(len(labels.classes), np.int8)), (clip, known[source.clips.key[row]])):
                label.append(said)
                key.append(name)
                start.append(at)
                at += len(sound) / rate
                end.append(at)
                parts.append(sound)
        soundfile.write(folder / name, np.concatenate(parts), rate)
    path = folder / "labels.h5"
    with files.create(path, "labels", inputs=[], made_from=str(seed), attributes={}) as sink:
        sink.write("label", np.array(label))
        for column, values in (("key", key), ("start", np.array(start)), ("end", np.array(end))):
            sink.write(f"segment/{column}", values)
        sink.write("class", labels.classes)
    return files.Labels(path)


def listen(model: Model, source: files.Features, place: Path, fold: str | None = None) -> job.Heard:
    """Return the scores of a model for the windows of features, of one fold or of all."""
    clips = None if fold is None else source.clips.split == fold
    Job(source, model, layer="probabilities", hop=HOP, clips=clips).run(place)
    return job.Heard(files.Embeddings(place), model.classes)


def compare(promised, heard: job.Heard, labels: files.Labels, seed: int) -> Told:
    """Return what thresholds promise, and what they give on labelled recordings."""
    clip, start = np.asarray(heard.scores.clip), np.asarray(heard.scores.start)
    label = Index(labels, heard.scores.clips.key).of_windows(clip, start + heard.window / 2)
    true = align(label, labels.classes, heard.classes) == 1
    score = np.concatenate([block for _, block, _ in heard.clips()])
    limit = promised.of(heard.classes)

    def figures(rows: np.ndarray) -> np.ndarray:
        chosen = np.flatnonzero(np.isfinite(limit))
        return np.array([at_threshold(score[rows, c], true[rows, c], limit[c])[:2] for c in chosen])

    own = figures(np.arange(len(clip)))
    generator, draws = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        drawn = generator.integers(0, clip.max() + 1, clip.max() + 1)
        draws.append(mean(figures(np.concatenate([np.flatnonzero(clip == each) for each in drawn]))))
    chosen = [each for each in promised.chosen if np.isfinite(each.threshold)]
    intervals = np.array([(each.precision_interval, each.recall_interval) for each in chosen])
    inside = (own >= intervals[:, :, 0]) & (own <= intervals[:, :, 1])
    said = mean(np.array([(each.precision, each.recall) for each in chosen]))
    return Told(said, mean(own), *np.nanpercentile(draws, [2.5, 97.5], axis=0), inside.sum(0), len(chosen))


def mean(values: np.ndarray) -> np.ndarray:
    """Return means over rows of what is known. Shape: `[rows, n]` to `[n]`."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)


def rows_of(told: Sequence[Told], start: Sequence[str]) -> list[str]:
    """Return a line of the table: means over seeds."""
    cells = list(start)
    for i in range(2):
        promised, found, low, high = (np.mean([getattr(each, name)[i] for each in told]) for name in Told._fields[:4])
        inside = np.mean([each.inside[i] for each in told])
        cells += [f"{promised:.3f}", f"{found:.3f} ({low:.3f} to {high:.3f})", f"{inside:.1f} of {told[0].classes}"]
    return cells


def markdown(options: argparse.Namespace) -> str:
    """Return the table: how thresholds were chosen, and what they promise and give."""
    source, labels = files.Features(options.features), files.Labels(options.labels)
    strung = {}
    for number, fold in enumerate((options.calibrate, options.test)):
        folder = options.work / f"recordings-{fold}"
        made = string(source, labels, fold, folder, number)
        sections.tool("featurize", folder, "--no-images", "-o", options.work / f"recordings-{fold}.h5", "-q")
        strung[fold] = files.Features(options.work / f"recordings-{fold}.h5"), made
    found: dict[tuple[str, str], list[Told]] = {}
    accelerator = device.choose()
    for seed, path in enumerate(options.models):
        model = Model(files.read_model(path), accelerator)
        clips = listen(model, source, options.work / "clips.h5", options.calibrate)
        alike = listen(model, strung[options.calibrate][0], options.work / "alike.h5")
        heard = listen(model, strung[options.test][0], options.work / "heard.h5")
        for wanted, precision in WANTED.items():
            for by, own, known in (("clips", clips, labels), ("recordings", alike, strung[options.calibrate][1])):
                promised = job.calibrate(own, known, precision, seed=seed)
                found.setdefault((by, wanted), []).append(compare(promised, heard, strung[options.test][1], seed))
    head = ["chosen on", "wanted", "precision promised", "found (95 %)", "within its interval"]
    lines = [[*head, "recall promised", "found (95 %)", "within its interval"]]
    lines += [["---"] * len(lines[0]), *(rows_of(told, way) for way, told in found.items())]
    return sections.rows(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("features", type=Path, help="features of the clips, with their folds as splits")
    parser.add_argument("--labels", type=Path, required=True, help="labels file of the clips")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="recognisers, one a seed")
    parser.add_argument("--calibrate", default="4", help="fold that chooses thresholds")
    parser.add_argument("--test", default="5", help="fold that is listened to")
    parser.add_argument("--work", type=Path, required=True, help="folder for recordings and scores")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file for the table alone")
    parser.add_argument("--results", type=Path, help="file of sections to put the table into")
    parser.add_argument("--section", default="calibrated", help="name of the section")
    parser.add_argument("--title", default="Thresholds: what was promised, and what was found", help="heading there")
    parser.add_argument("--command", default="calibrated.py", help="command line to state there")
    options = parser.parse_args(arguments)
    try:
        table = markdown(options)
    except (SoundsslError, OSError) as error:
        print(f"calibrated.py: {error}", file=sys.stderr)
        return 1
    notes = [
        f"Thresholds were chosen on fold {options.calibrate}, its clips as they are or strung into recordings with",
        f"noise between; found on {options.test}, strung so. Means of classes and {len(options.models)} seeds.",
        "Intervals are over recordings drawn with replacement. A window counts by the clip that holds its middle,",
        "silence within a clip too.",
    ]
    sections.publish(table, options, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
