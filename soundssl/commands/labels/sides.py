"""soundssl labels split, sample and nominate: who validates, who is drawn, whom to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundssl.commands.labels.remaking import Flags, Given, Made, remake, report
from soundssl.commands.options import Force, NoClobber, NoProvenance, Quiet, Seed, words
from soundssl.commands.target import Target, aim

if TYPE_CHECKING:
    from soundssl.labels import LabelSet
    from soundssl.labels.splits import Clips, Division


def split(
    labels: Given,
    by: Annotated[
        Literal["recording", "uploader", "key"],
        typer.Option(help="What clips of training and validation shall not share; key: each clip is on its own."),
    ] = "recording",
    validation: Annotated[
        float | None, typer.Option(help="Share of each class that validates, between 0 and 1. Default: 0.1.")
    ] = None,
    method: Annotated[
        Literal["least", "stratified"] | None,
        typer.Option(
            help="least (default): least within-class contamination, of sets of clips that share an uploader and "
            "classes (after Fonseca et al. 2022; inferred); stratified: iterative stratification of single clips, its "
            "rival."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="So many folds, named from 1, by a checksum of what --by names, in place of train and validation: "
            "clips that come later move no others (MM-Videos has 4096, of single clips).",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--split", help="Divide only clips of these splits, separated by commas; others stay as they are."
        ),
    ] = None,
    output: Made = None,
    seed: Seed = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Divide clips into the splits train and validation, and say how much the two have in common; or into folds.

    WC is the share of validation clips that have a training clip of the same uploader (or recording) and class, BC of
    those with one of other classes only. What --split of other commands takes is the split of the labels where they
    are given, before that of the features.

    Example:

    soundssl labels split labels.h5 --by uploader --validation 0.1 -o divided.labels.h5

    soundssl labels split machine.labels.h5 --by key --folds 15 -o folds.labels.h5
    """
    flags = Flags(force, no_clobber, no_provenance, quiet)
    if folds is not None:
        if validation is not None or method or seed:
            raise typer.BadParameter("folds are by a checksum; leave out --validation, --method and --seed")
        divided = {"by": by, "folds": folds, "split": only}
        count = folds
        remake(
            "split", labels, output, {}, divided, flags, lambda to, given: _folds(to, given, labels, by, count, only)
        )
        return
    share = 0.1 if validation is None else validation
    if not 0 < share < 1:
        raise typer.BadParameter(f"{share:g} does not lie between 0 and 1", param_hint="--validation")

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        import dataclasses

        from soundssl.labels import labelset, splits

        clips = splits.clips_of(given, by)
        chosen = labelset.in_splits(given, words(only), labels)[clips.first]
        part = splits.part(clips, chosen)
        divide = splits.stratified if method == "stratified" else splits.least_contaminated
        division = divide(part, share, seed)
        _tell(target, given, part, division, chosen)
        whole = splits.spread(division.validation, chosen)
        named = splits.named(given, clips, whole, chosen)
        return dataclasses.replace(given, split=named), f"after: {splits.contamination(part, division.validation)}"

    options = {"by": by, "validation": share, "method": method or "least", "split": only, "seed": seed}
    remake("split", labels, output, {}, options, flags, make)


def _folds(target: Target, given: LabelSet, path: Path, by: str, count: int, only: str | None) -> tuple[LabelSet, str]:
    """Divide clips into folds by a checksum, those of other splits left as they are."""
    import dataclasses

    import numpy as np

    from soundssl.labels import labelset, splits

    chosen = labelset.in_splits(given, words(only), path)
    fold = splits.folds(given, by, count)
    before = np.full(len(given), "", object) if given.split is None else given.split
    clips = {str(key): str(name) for key, name in zip(given.key[chosen], fold[chosen], strict=True)}
    sizes = np.unique(list(clips.values()), return_counts=True)[1]
    if len(sizes) < count:
        target.terminal.warn(f"{count - len(sizes)} of {count} folds are empty; take fewer --folds")
    made = dataclasses.replace(given, split=np.where(chosen, fold, before))
    return made, f"{len(clips)} clips in {len(sizes)} folds of {sizes.min(initial=0)} to {sizes.max(initial=0)}"


def _tell(target: Target, given: LabelSet, part: Clips, division: Division, chosen) -> None:
    """Say what the splits of before share, and which classes cannot be divided without contamination."""
    from soundssl.labels import splits

    before = splits.validation_of(given, part)
    if before.any() and not before.all():
        target.terminal.say(f"before: {splits.contamination(part, before)}")
    if division.single:
        names = [given.classes[i] for i in division.single]
        target.terminal.say(
            f"{division.unavoidable} validation clips cannot but share uploader or recording and class with training: "
            f"one alone has {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"
        )
    if division.lacking:
        names = [given.classes[i] for i in division.lacking]
        target.terminal.warn(f"{len(names)} classes are on one side alone: {', '.join(names[:10])}")


def sample(
    labels: Given,
    per_class: Annotated[int, typer.Option(min=0, help="Segments of each class; 0: all.")] = 0,
    fraction: Annotated[float, typer.Option(help="Share of the segments, above 0 to 1.")] = 1.0,
    top: Annotated[int, typer.Option("--classes", min=0, help="Only the most frequent classes, so many; 0: all.")] = 0,
    skew: Annotated[
        float, typer.Option(min=0, help="Exponent A: the i-th class by frequency keeps 1 / i^A of what the first has.")
    ] = 0.0,
    only: Annotated[
        str | None, typer.Option("--split", help="Draw only from these splits, separated by commas; others stay.")
    ] = None,
    output: Made = None,
    seed: Seed = 0,
    force: Force = False,
    no_clobber: NoClobber = False,
    no_provenance: NoProvenance = False,
    quiet: Quiet = False,
) -> None:
    """Draw segments: so many a class, a share of all, the largest classes, or with a skew.

    Example:

    soundssl labels sample labels.h5 --split train --per-class 20 -o few.labels.h5
    """
    from soundssl.labels import Draw, labelset
    from soundssl.labels import sample as drawn

    if not 0 < fraction <= 1:
        raise typer.BadParameter(f"{fraction:g} does not lie above 0 to 1", param_hint="--fraction")

    def make(target: Target, given: LabelSet) -> tuple[LabelSet, str]:
        chosen = labelset.in_splits(given, words(only), labels)
        made = drawn(given, Draw(top, per_class, fraction, skew), chosen, seed)
        if not len(made):
            raise ValueError(f"no segment of {labels.name} is left; draw more")
        counts = (made.label == 1).sum(0)
        report(
            [{"class": name, "segments": int(count)} for name, count in zip(made.classes, counts, strict=True)], target
        )
        return made, f"{len(made)} of {len(given)} segments"

    flags = Flags(force, no_clobber, no_provenance, quiet)
    options = {"per_class": per_class, "fraction": fraction, "classes": top, "skew": skew, "split": only, "seed": seed}
    remake("sample", labels, output, {}, options, flags, make)


def nominate(
    metadata: Annotated[
        Path, typer.Argument(help="Table of recordings: path, and title, tags or description, with a header.")
    ],
    keywords: Annotated[
        Path,
        typer.Argument(
            help="Table with the columns class and keyword (several separated by ;); one after - forbids its class."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Sheet to write. Default: STEM.candidates.csv, printed.")
    ] = None,
    force: Force = False,
    no_clobber: NoClobber = False,
    quiet: Quiet = False,
) -> None:
    """Nominate classes for recordings by keywords in titles and tags, as questions for people.

    The sheet has a row for each recording and candidate: path, candidate, keyword, and an empty column class to be
    filled in; featurize --dataset csv reads it in turn. Keywords match whole words, in any case (FSD50K's nomination).

    Example:

    soundssl labels nominate metadata.csv keywords.csv -o questions.csv
    """
    from soundssl import files
    from soundssl.labels import nomination

    for path in (metadata, keywords):
        files.require(path)
    default = metadata.with_name(f"{metadata.stem}.candidates.csv")
    target = aim(
        "labels nominate", output, default, [metadata, keywords], "CSV", "text", force=force, no_clobber=no_clobber,
        quiet=quiet,
    )  # fmt: skip
    if target.path.exists() and not force:
        raise files.Unusable(f"{files.text(target.path)} exists, and may hold answers; name another, or give --force")
    found = nomination.candidates(metadata, keywords)
    with files.replace(target.path) as partial:
        partial.write_text(found.sheet, "utf-8")
    report([{"class": name, "candidates": count} for name, count in found.counts.items()], target)
    target.finish(f"{sum(found.counts.values())} candidates for {found.named} of {found.recordings} recordings")
