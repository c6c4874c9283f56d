"""label-clusters and the evaluations of clusters and labels, from files to files: an oracle, and sheets."""

import csv
import re
from pathlib import Path

import builder
import numpy as np
import pytest
from cluster_world import CLASSES, CLIPS, HOP, NUMBER, WINDOW, WINDOWS, World, make_world, run, write_clusters

from soundssl import files


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made, tmp_path) -> World:
    """Give the world with a folder of one's own for what is written."""
    return made._replace(folder=tmp_path)


# An oracle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 3, 4, 50])
def test_perfect_clusters_have_precision_one_and_the_recall_they_cover(world, budget):
    out = world.folder / "spread.h5"
    done = run("label-clusters", world.clusters, "--labels", world.labels, "--budget", budget, "--preset", "paper",
               "-o", out)  # fmt: skip
    assert done.status == 0, done.err
    asked = NUMBER[: min(budget, 4)]
    covered = np.isin(world.cluster, asked)
    label = world.column(out)
    assert ((label == np.eye(3)[world.of_class]).all(1) == covered).all() and (label[~covered] == -1).all()
    rows = done.rows()
    assert (rows["questions"], rows["labelled_windows"]) == (len(asked), covered.sum())
    assert rows["precision"] == rows["pooled_precision"] == 1.0
    assert rows["pooled_recall"] == rows["coverage"] == pytest.approx(covered.mean())
    recall = [covered[world.of_class == c].mean() for c in range(3)]
    assert rows["recall"] == pytest.approx(np.mean(recall))
    known = files.Labels(out)
    questions = known.origin == 0
    assert questions.sum() == len(asked) and (known.weight[questions] == 1).all()
    confidence = files.Clusters(world.clusters).confidence[covered]
    assert known.weight[~questions] == pytest.approx(confidence[~questions])
    assert set(known.split) == {"1", "2"} and known.end - known.start == pytest.approx(WINDOW)


def test_the_default_is_the_central_member_and_the_nearest_half(world):
    out = world.folder / "spread.h5"
    assert run("label-clusters", world.clusters, "--labels", world.labels, "-o", out, "-q") == (0, "", "")
    labelled = (world.column(out) >= 0).any(1)
    for number in NUMBER:
        members = np.flatnonzero(world.cluster == number)
        nearest = members[np.argsort(-world.similarity[members])][: len(members) // 2]
        assert set(np.flatnonzero(labelled & (world.cluster == number))) == set(nearest)
    best = world.folder / "best.h5"
    options = ["--order", "size", "--ask", "central", "--spread", "0.5", "--preset", "paper"]
    run("label-clusters", world.clusters, "--labels", world.labels, "-o", best, "-q", *options)
    assert (world.column(best) == world.column(out)).all()


def test_only_the_chosen_splits_are_asked_about_and_labelled(world):
    out = world.folder / "spread.h5"
    done = run("label-clusters", world.clusters, "--labels", world.labels, "--split", "2", "--spread", 1, "-o", out)
    assert ((world.column(out) >= 0).any(1) == (world.split == 2)).all()
    assert done.rows()["coverage"] == 1.0
    scored = run("evaluate", "labels", out, "--truth", world.labels, "--windows", world.clusters)
    assert scored.rows()["coverage"] == 1.0 and scored.rows()["recall"] == done.rows()["recall"]


def test_splits_of_the_labels_come_before_those_of_the_clusters(world):
    known, number = files.Labels(world.labels), np.arange(CLIPS) // 9
    given, out = world.folder / "split.labels.h5", world.folder / "l.h5"
    builder.labels(given, builder.whole(known.key), known.classes, known.label, split=[f"fold {i}" for i in number])
    done = run("label-clusters", world.clusters, "--labels", given, "--split", "fold 1", "--spread", 1, "-o", out)
    assert done.status == 0, done.err
    chosen = np.repeat(number, WINDOWS) == 1
    assert ((world.column(out) >= 0).any(1) == chosen).all()
    assert set(files.Labels(out).split) == {"fold 1"} and done.rows()["recall"] == 1
    assert run("evaluate", "labels", out, "--truth", given, "--windows", world.clusters).rows()["recall"] == 1
    done = run("label-clusters", world.clusters, "--labels", given, "--split", "2", "-o", world.folder / "m.h5")
    assert done.status == 1 and "split.labels.h5 has no split '2'; it has 'fold 0', 'fold 1'" in done.err


@pytest.mark.parametrize("source", ["clusters", "embeddings"])
def test_random_windows_of_the_same_budget(world, source):
    path, out = world.clusters, world.folder / "random.h5"
    if source == "embeddings":
        path = world.folder / "e.embeddings.h5"
        clusters = files.Clusters(world.clusters)
        about = {"layer": "embedding", "hop": HOP, "window": WINDOW, "class": "[]"}
        with files.create(path, "embeddings", inputs=[], made_from="", attributes=about) as sink:
            sink.write("embedding", np.zeros((len(world.cluster), 2), "f4"))
            sink.write("window/clip", clusters.clip.astype("i4"))
            sink.write("window/start", clusters.start)
            for name in ("key", "recording", "split"):
                sink.write(f"clip/{name}", getattr(clusters.clips, name))
            sink.write("clip/source", [f"videos/{key}" for key in clusters.clips.key])
            sink.write("clip/start", np.full(CLIPS, 100.0))
    words = ["label-clusters", path, "--labels", world.labels, "--random", "-o", out]
    done = run(*words, "--budget", 7)
    label = world.column(out)
    rows = (label >= 0).any(1)
    assert rows.sum() == 7 and (label[rows] == np.eye(3)[world.of_class[rows]]).all()
    assert (files.Labels(out).origin == 0).all() and done.rows()["precision"] == 1.0
    run(*words, "--budget", 9)
    assert ((world.column(out) >= 0).any(1) & rows).sum() == 7  # a larger budget only adds
    run(*words, "--budget", 7, "--seed", 1)
    assert ((world.column(out) >= 0).any(1) != rows).any()
    if source == "embeddings":
        assert "say how many windows" in run(*words).err
        run("label-clusters", path, "--random", "--budget", 2, "--questions", world.folder / "q.csv")
        line = next(csv.DictReader((world.folder / "q.csv").read_text().splitlines()))
        assert line["file"] == f"videos/{line['clip']}" and float(line["start"]) >= 100 and line["cluster"] == ""
        (world.folder / "q.csv").write_text((world.folder / "q.csv").read_text().replace(",\n", ",dog\n", 1))
        done = run("label-clusters", path, "--random", "--budget", 2, "--answers", world.folder / "q.csv", "-o", out)
        assert done.rows() == {"questions": 1, "labelled_windows": 1}, done.err


def test_the_same_command_finds_its_work_done_and_gives_equal_bytes(world):
    first, second = world.folder / "a.h5", world.folder / "b.h5"
    words = ["label-clusters", world.clusters, "--labels", world.labels, "--ask", "random", "--no-provenance", "-o"]
    run(*words, first), run(*words, second)
    assert first.read_bytes() == second.read_bytes()
    assert "is up to date" in run(*words, first).err
    run(*words, second, "--seed", 5)
    assert first.read_bytes() != second.read_bytes()
    assert run(*words, first, "--no-clobber").status == 2


def test_answers_without_a_class_cost_unless_they_are_free(world):
    known = files.Labels(world.labels)
    known.label = known.label.copy()
    known.label[:8] = np.where(np.arange(8)[:, None] < 5, 0, -1)  # the largest cluster: none of these, or unknown
    partial = world.folder / "partial.h5"
    with files.create(partial, "labels", inputs=[], made_from="x", attributes={}) as sink:
        sink.write("label", known.label)
        for name, values in (("key", known.key), ("start", known.start), ("end", known.end)):
            sink.write(f"segment/{name}", values)
        sink.write("class", CLASSES)
    words = ["label-clusters", world.clusters, "--labels", partial, "--budget", 2, "-o", world.folder / "o.h5"]
    assert run(*words).rows()["questions"] == 2
    assert run(*words, "--unanswered", "free").rows()["questions"] == 3


def test_without_output_the_path_is_printed_and_no_labels_are_in_its_way(world):
    copy = world.folder / "x.clusters.h5"
    copy.write_bytes(world.clusters.read_bytes())
    done = run("label-clusters", copy, "--labels", world.labels)
    assert done.out == f"{world.folder / 'x.spread.labels.h5'}\n"
    assert re.search(
        r"4 questions, 90 of 180 windows labelled, precision 1\.000 \(pooled 1\.000\), recall 0\.5", done.err
    )


# Sheets -----------------------------------------------------------------------------------------------------------


def fill(sheet: Path, world: World, delimiter: str = ",") -> list[dict]:
    """Answer a sheet truly, as a spreadsheet would save it."""
    with open(sheet, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["class"] = CLASSES[world.of_class[world.cluster == int(line["cluster"])][0]]
    with open(sheet, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)
    return lines


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_sheet_gives_what_the_oracle_gives(world, delimiter):
    sheet, out, oracle = (world.folder / name for name in ("q.csv", "spread.h5", "oracle.h5"))
    words = ["label-clusters", world.clusters, "--ask", "random", "--seed", 3]
    assert run(*words, "--budget", 3, "--questions", sheet).status == 0
    lines = fill(sheet, world, delimiter)
    assert [int(line["cluster"]) for line in lines] == NUMBER[:3].tolist()
    done = run(*words, "--answers", sheet, "--truth", world.labels, "-o", out)
    assert done.status == 0, done.err
    run(*words, "--labels", world.labels, "--budget", 3, "-o", oracle, "-q")
    given, expected = files.Labels(out), files.Labels(oracle)
    assert given.classes == CLASSES[:2]  # those that were named
    assert (given.label == expected.label[:, :2]).all() and (given.start == expected.start).all()
    assert (given.origin == expected.origin).all() and (given.key == expected.key).all()
    assert done.rows()["precision"] == 1.0 and done.rows()["classes_without_label"] == 1.0


def test_lines_left_empty_are_questions_not_asked(world):
    sheet, out = world.folder / "q.csv", world.folder / "spread.h5"
    run("label-clusters", world.clusters, "--questions", sheet)
    empty = run("label-clusters", world.clusters, "--answers", sheet, "-o", out)
    assert empty.status == 1 and "q.csv has no answer; fill in the column class" in empty.err
    head, *lines = sheet.read_text().splitlines()
    answers = ["dog", "", "none", "?"]
    sheet.write_text("\n".join([head, *(line + answer for line, answer in zip(lines, answers, strict=True))]))
    done = run("label-clusters", world.clusters, "--answers", sheet, "-o", out, "--spread", 1)
    label = world.column(out)[:, 0]
    assert [set(label[world.cluster == number]) for number in NUMBER] == [{1}, {-1}, {0}, {-1}]
    assert done.rows() == {"questions": 3, "labelled_windows": 80 + 30}
    fewer = run("label-clusters", world.clusters, "--answers", sheet, "-o", out, "--budget", 1)
    assert fewer.rows()["questions"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("clip 0.wav", "clop.wav"),
            r"q\.csv line 2: no clip is called 'clop\.wav'; answer the",
        ),
        (
            lambda text: re.sub(r"\n4,", "\n5,", text),
            r"q\.csv line 2: it names cluster 5, the window is asked about for",
        ),
        (lambda text: text.replace(",dog", ",dog; none", 1), r"q\.csv line 2: 'dog; none' says both a class and none"),
        (lambda text: text.replace("start", "begin"), r"q\.csv line 1 has no column 'start'; keep the first line"),
        (lambda text: text + text.splitlines()[1], r"q\.csv lines 2 and 6 answer one question; delete one of them"),
    ],
)
def test_sheets_that_do_not_fit_are_named_with_line_and_remedy(world, change, message):
    sheet = world.folder / "q.csv"
    run("label-clusters", world.clusters, "--questions", sheet)
    head, *lines = sheet.read_text().splitlines()
    lines[0] = re.sub(r"clip \d+\.wav", "clip 0.wav", lines[0])
    sheet.write_text("\n".join([head, *(line + "dog" for line in lines)]) + "\n")
    assert run("label-clusters", world.clusters, "--answers", sheet, "-o", world.folder / "fits.h5").status == 0
    sheet.write_text(change(sheet.read_text()))
    done = run("label-clusters", world.clusters, "--answers", sheet, "-o", world.folder / "spread.h5")
    assert done.status == 1 and re.search(message, done.err) and done.err.count("\n") == 1
    assert not (world.folder / "spread.h5").exists()


def test_a_sheet_with_answers_is_not_written_over(world):
    sheet = world.folder / "q.csv"
    words = ["label-clusters", world.clusters, "--questions", sheet]
    assert run(*words).status == run(*words, "--budget", 2).status == 0
    fill(sheet, world)
    content = sheet.read_bytes()
    assert "q.csv has 2 answers; name another sheet" in run(*words).err and sheet.read_bytes() == content
    assert run(*words, "--force").status == 0 and sheet.read_bytes() != content
    sheet.write_text("shopping list\n")
    assert run(*words).status == 1 and sheet.read_text() == "shopping list\n"


# Refusals ---------------------------------------------------------------------------------------------------------


def test_clusters_of_a_bare_matrix_are_refused_in_words(made, world):
    done = run("label-clusters", made.folder / "bare.h5", "--labels", world.labels, "-o", world.folder / "o.h5")
    assert done.status == 4 and "holds clusters of a bare matrix, without clips and times to ask about" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "a", "--answers", "b"], "answers come from one place"),
        (["--labels", "a", "--truth", "b"], "goes with answers of people"),
        (["--preset", "worst"], "'worst' is not one of 'best', 'paper'"),
        (["--order", "name"], "'name' is not one of 'size', 'diverse', 'random'"),
        (["--ask", "loud"], "'loud' is not one of 'random', 'central', 'confident'"),
        (["--spread", "0"], "0 is not above 0"),
        (["--spread", "2"], "--spread"),
        (["--unanswered", "maybe"], "'maybe' is not one of 'spend', 'free'"),
        (["--questions", "q", "--unanswered", "free"], "a sheet has its questions at once"),
        (["--random", "--ask", "central"], "leave out --ask"),
        (["--budget", "0"], "--budget"),
    ],
)
def test_options_that_do_not_fit_are_named(world, words, message):
    done = run("label-clusters", world.clusters, *words)
    assert done.status == 2 and message in " ".join(done.err.split())


def test_labels_that_answer_nothing_are_named(world):
    with files.create(world.folder / "l.h5", "labels", inputs=[], made_from="", attributes={}) as sink:
        sink.write("label", np.ones((1, 1), np.int8))
        sink.write("segment/key", ["elsewhere.wav"])
        sink.write("segment/start", np.zeros(1))
        sink.write("segment/end", np.ones(1))
        sink.write("class", ["dog"])
    done = run("label-clusters", world.clusters, "--labels", world.folder / "l.h5", "-o", world.folder / "o.h5")
    assert done.status == 1 and "are their keys the same?" in done.err
    assert run("label-clusters", world.clusters, "--split", "3", "--labels", world.labels).status == 1
    assert "holds labels, not clusters" in run("label-clusters", world.labels, "--labels", world.labels).err


# Evaluations ------------------------------------------------------------------------------------------------------


def test_evaluate_clusters_reads_windows_and_bare_rows(made, world):
    done = run("evaluate", "clusters", world.clusters, "--labels", world.labels)
    rows = done.rows()
    assert rows["homogeneity"] == pytest.approx(1) and rows["completeness"] < 1 and rows["active_clusters"] == 4
    fewer = run("evaluate", "clusters", world.clusters, "--labels", world.labels, "--split", "1").rows()
    assert fewer["left_out_windows"] == 0 and fewer["largest_size"] == 40
    refused = run("evaluate", "clusters", made.folder / "bare.h5", "--labels", world.labels)
    assert refused.status == 4 and "has 180 rows without times and the labels 18 segments" in refused.err
    rowwise = world.folder / "rows.h5"
    with files.create(rowwise, "labels", inputs=[], made_from="", attributes={}) as sink:
        sink.write("label", np.eye(3, dtype=np.int8)[world.of_class])
        sink.write("segment/key", [str(i) for i in range(180)])
        sink.write("segment/start", np.zeros(180))
        sink.write("segment/end", np.ones(180))
        sink.write("class", CLASSES)
    bare = run("evaluate", "clusters", made.folder / "bare.h5", "--labels", rowwise).rows()
    assert bare["V_measure"] == rows["V_measure"]


def test_evaluate_labels_finds_the_windows_and_agrees_with_the_report(world):
    copy, out = world.folder / "c.h5", world.folder / "spread.h5"
    write_clusters(copy, np.roll(world.cluster, 7), world.similarity)  # impure clusters, of overlapping windows
    reported = run("label-clusters", copy, "--labels", world.labels, "--spread", 0.3, "-o", out).rows()
    scored = run("evaluate", "labels", out, "--truth", world.labels)
    assert scored.err == "" and 0 < reported["precision"] < 1
    assert scored.rows() == {name: reported[name] for name in reported if name not in ("questions", "labelled_windows")}
    copy.unlink()
    alone = run("evaluate", "labels", out, "--truth", world.labels)
    assert "give --windows for all windows" in alone.err and alone.rows()["coverage"] == 1.0
    assert alone.rows()["precision"] == reported["precision"]
    whole = run("evaluate", "labels", world.labels, "--truth", world.labels).rows()
    assert whole["precision"] == whole["recall"] == 1.0
