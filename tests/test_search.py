"""search: the nearest windows exactly, in bounded blocks, beside none that overlap; and their way to labels."""

import json

import builder
import h5py
import numpy as np
import pytest
from cluster_world import run
from stored_models import unpack

from soundssl import files, load_model, search
from soundssl.detection import formats
from soundssl.embedding import Job
from soundssl.ops import neighbors

LENGTH, HOP = 0.96, 0.48


def brute(vectors, clip, start, example: int, top: int, most: int) -> list[int]:
    """Return rows by the definition: the most similar first, none near the example or a better one."""
    unit = vectors.astype("f8") / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept, every = [], [example]
    for row in np.argsort(-unit @ unit[example], kind="stable"):
        near = any(clip[row] == clip[other] and abs(start[row] - start[other]) < LENGTH - 1e-6 for other in every)
        if not near and not (most and sum(clip[row] == clip[other] for other in kept) >= most):
            kept.append(int(row))
            every.append(int(row))
    return kept[:top]


@pytest.fixture
def space(tmp_path):
    """Write an embeddings file of 12 clips of 20 windows, half a window apart."""
    generator = np.random.default_rng(3)
    clip, start = np.repeat(np.arange(12), 20), np.tile(np.arange(20) * HOP, 12)
    vectors = generator.normal(size=(240, 8)).astype("f4") * generator.uniform(0.1, 9, (240, 1)).astype("f4")
    keys = [f"{number}.wav" for number in range(12)]
    path = builder.embeddings(
        tmp_path / "e.h5", vectors, clip=clip, start=start, keys=keys, attributes={"window": LENGTH, "hop": HOP}
    )
    return path, vectors, clip, start


@pytest.mark.parametrize(("top", "most"), [(5, 0), (500, 0), (9, 1), (30, 2)])
def test_what_is_found_is_what_the_definition_says(space, top, most, monkeypatch):
    path, vectors, clip, start = space
    expected = brute(vectors, clip, start, 47, top, most)
    for block, first in ((4096, 256), (7, 2)):  # the file at once, and in blocks that do not divide it
        monkeypatch.setattr(search, "BLOCK", block)
        monkeypatch.setattr(search, "SORTED", first)
        searched = search.Searched(files.Embeddings(path))
        example = searched.example(f"2.wav@{start[47] + LENGTH / 2}")
        assert example.start == pytest.approx(start[47]) and example.path == "2.wav"
        found = search.search(searched, [example], top, most)
        assert [(each.path, round(each.start, 6)) for each in found] == [
            (f"{clip[row]}.wav", round(start[row], 6)) for row in expected
        ]
        assert all(each.end == pytest.approx(each.start + LENGTH) for each in found)
    cosine = [float(neighbors.unit(vectors[[47]])[0] @ neighbors.unit(vectors[[row]])[0]) for row in expected]
    np.testing.assert_allclose([each.similarity for each in found], cosine, atol=1e-5)


def test_of_several_examples_the_nearest_counts(space):
    path, *_ = space
    searched = search.Searched(files.Embeddings(path))
    examples = [searched.example(name) for name in ("0.wav@0.1", "5.wav")]
    both = {(each.path, each.start): each for each in search.search(searched, examples, 400)}
    for number, example in enumerate(examples):
        alone = search.search(searched, [example], 400)
        for each in alone:
            if (each.path, each.start) in both:
                assert both[each.path, each.start].similarity >= each.similarity - 1e-6
        assert any(each.example == number for each in both.values())


def test_numbers_that_are_not_finite_are_said(tmp_path):
    path = builder.embeddings(tmp_path / "n.h5", np.ones((4, 3), "f4"))
    with h5py.File(path, "a") as file:
        file["embedding"][2, 1] = np.nan
    done = run("search", path, "--like", "clip-00", "-q")
    assert done.status == 1 and "n.h5: 1 rows of vectors are not finite; embed the features again" in done.err


@pytest.fixture(scope="module")
def world(toy, tmp_path_factory):
    """Embed the toy features with a net whose weights are drawn; give features, embeddings and the model."""
    folder = tmp_path_factory.mktemp("search")
    path, model = folder / "e.h5", folder / "model.safetensors"
    words = ("--objective", "contrastive", "--steps", 1, "--learning-rate", 0, "--batch-size", 4, "--size", 16)
    assert run("train", toy.features, *words, "-q", "-o", model).status == 0
    Job(files.Features(toy.features), load_model(model, "cpu", "float32"), hop=0.48).run(path)
    return toy.features, path, model


def test_an_example_is_the_same_from_a_file_a_clip_and_features(world, toy):
    features, embeddings, model = world
    trained = load_model(model, "cpu", "float32")
    place = f"{toy.folder / 'chirp-0.wav'}@1.44"
    of = [
        search.Searched(files.Embeddings(embeddings)).example("chirp-0.wav@1.44"),
        search.Searched(files.Embeddings(embeddings)).example(place),  # known by its path, without the model
        search.Searched(files.Embeddings(embeddings), trained).example(place),
        search.Searched(files.Features(features), trained, 0.48).example("chirp-0.wav@1.44"),
    ]
    vectors = neighbors.unit(np.stack([each.vector for each in of]))
    assert (vectors @ vectors.T).min() > 0.999
    assert {round(each.start, 6) for each in of} == {0.96}
    for searched in (search.Searched(files.Embeddings(embeddings)), search.Searched(files.Features(features), trained)):
        found = search.search(searched, [of[2]], 6)
        assert len(found) == 6 and found[0].similarity > found[-1].similarity
        assert not any(each.path.endswith("chirp-0.wav") and abs(each.start - 0.96) < LENGTH - 1e-6 for each in found)


@pytest.mark.parametrize("name", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_are_read_as_events(world, name, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"found.{name}"
    done = run("search", world[1], "--like", "clicks-1.flac@1", "--top", 3, "--class", "a; b", "-o", output)
    assert (done.status, done.out) == (0, "") and "3 of 120 windows, similarity" in done.err, done.err
    events = formats.read(output.read_bytes(), output)
    assert len(events) == 3 and {event.name for event in events} == {"a; b"}
    assert all(event.end - event.start == pytest.approx(LENGTH) for event in events)


def test_standard_output_takes_a_table(world, soundssl):
    done = soundssl("search", world[1], "--like", "clicks-1.flac@1", "--top", 2, "--format", "jsonl", "-q")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.status == 0 and [row["example"] for row in rows] == ["clicks-1.flac@1"] * 2
    assert rows[0]["similarity"] >= rows[1]["similarity"] and list(rows[0]) == list(search.COLUMNS)


def test_features_are_searched_through_a_model(world, tmp_path):
    output = tmp_path / "f.csv"
    words = ("--like", "clicks-1.flac@1", "--top", 1, "--hop", 0.48, "-q", "-o", output)
    assert run("search", world[0], "-m", world[2], *words).status == 0
    assert output.read_text().startswith("path,start_s,end_s,class,similarity,example\n")


def test_what_is_found_is_marked_in_a_page_and_becomes_labels(world, tmp_path):
    table, page = tmp_path / "found.csv", tmp_path / "found.html"
    words = ("--like", "chirp-1.flac@1", "--class", "chirp", "--top", 4, "-o", table, "--page", page)
    done = run("search", world[1], *words)
    assert done.status == 0 and "4 questions in" in done.err, done.err
    assert page.read_text("utf-8").count('id="question-') == 4
    lines = table.read_text().splitlines()[1:]
    cells = [line.split(",") for line in lines]
    sheet = tmp_path / "answers.csv"
    said = ["chirp", "none", "?", "tone"]
    rows = [f"chirp,{path},{start},{end},{word}" for (path, start, end, *_), word in zip(cells, said, strict=True)]
    sheet.write_text("\n".join(["asked,file,start,end,class", *rows]) + "\n")
    done = run("label-clusters", table, "--answers", sheet, "-o", tmp_path / "labels.h5")
    assert done.status == 0 and "3 of 4 events have a label, 1 cannot be told" in done.err, done.err
    labels = files.Labels(tmp_path / "labels.h5")
    assert labels.classes == ["chirp", "tone"] and labels.label.tolist() == [[1, -1], [0, -1], [0, 1]]
    assert list(labels.key) == [cells[row][0] for row in (0, 1, 3)]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--like", "gone.wav@1"), 2, "gone.wav is no media file and no clip of"),
        (("--like", "clicks-1.flac@one"), 2, "'one' is no second; write it as clip.wav@3.2"),
        (("--like", "clicks-1.flac@-1"), 2, "a second before the beginning; count from 0"),
        (("--like", "clicks-1.flac@99"), 2, "has no window there; the last ends at"),
        (("--like", "{here}"), 2, "is no recording of"),
        (("--like", "clicks-1.flac@1", "-o", "x.h5"), 2, "would be CSV, TSV, JSON lines or Parquet"),
        (("--like", "clicks-1.flac@1", "--format", "parquet"), 2, "cannot be sent through a pipe"),
        (("--like", "clicks-1.flac@1", "--page", "x.csv"), 2, "would be HTML"),
        (("--like", "clicks-1.flac@1", "--hop", "0.5"), 2, "is of features; embeddings have theirs"),
        (("--like", "clicks-1.flac@1", "--top", "0"), 2, "'--top'"),
        ((), 2, "Missing option '--like'"),
    ],
)
def test_bad_options_have_their_line(world, words, status, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(word).replace("{here}", __file__) for word in words]
    done = run("search", world[1], *words)
    assert (done.status, done.out) == (status, "") and said in " ".join(done.err.split()), done.err
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_go_together_are_refused(world, toy, tmp_path):
    features, embeddings, model = world
    done = run("search", features, "--like", "clicks-1.flac@1")
    assert done.status == 2 and "features are searched through a model" in done.err
    other = unpack("triplet", tmp_path)
    done = run("search", embeddings, "--like", "clicks-1.flac@1", "-m", other)
    assert done.status == 4 and "was made with another model than" in done.err
    done = run("search", toy.labels, "--like", "clicks-1.flac@1")
    assert done.status == 4 and "holds labels, not embeddings" in done.err
    late = f"{toy.folder / 'chirp-0.wav'}@9"
    done = run("search", embeddings, "-m", model, "--like", late)
    assert done.status == 2 and "the file lasts 3.00 s; name a second in it" in done.err
    (tmp_path / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    done = run("search", embeddings, "-m", model, "--like", tmp_path / "broken.wav")
    assert done.status == 1 and "broken.wav" in done.err and len(done.err.splitlines()) == 1
