"""Review: events asked about one by one, yes or no, and what the answers say of their spans."""

from collections import Counter

import numpy as np
import pytest
from cluster_world import run

from soundssl import files, load_model
from soundssl.detection.decisions import Rule
from soundssl.detection.events import Event
from soundssl.detection.job import Heard, calibrate, events
from soundssl.embedding import Job
from soundssl.labelling import page, review

EVENTS = [
    Event("a.wav", 1.0, 2.0, "dog", 0.9),
    Event("a.wav", 1.0, 2.0, "cat; small", 0.4),
    Event("dir/b, c.wav", 0.25, 61.2345678, "dog", None),
    Event("=1+1.wav", 3.0, 4.5, "Owl"),
]
HEAD = "path,start_s,end_s,class,score,low_hz,high_hz,model\n"
TABLE = HEAD + (
    "a.wav,1.0,2.0,dog,0.9,,,m\n"
    "a.wav,1.0,2.0,cat; small,0.4,,,m\n"
    '"dir/b, c.wav",0.25,61.234568,dog,,,,m\n'
    "'=1+1.wav,3.0,4.5,Owl,,,,m\n"
)


def sheet(path, *answers: str):
    """Write the sheet that the page of EVENTS saves."""
    lines = [("asked", "file", "start", "end", "class")]
    for event, answer in zip(EVENTS, answers, strict=True):
        lines.append((event.name, event.path, f"{event.start}", f"{event.end:.6f}", answer))
    path.write_text("".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines))
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "detections.csv"
    path.write_text(TABLE)
    return path


def test_yes_is_one_no_is_zero_for_that_class_and_span(table, tmp_path):
    answers = sheet(tmp_path / "s.csv", "DOG; cow", "cat; small", "none", "?")
    done = run("label-clusters", table, "--answers", answers)
    assert (done.status, done.out.strip()) == (0, str(tmp_path / "detections.labels.h5")), done.err
    assert "3 of 4 events have a label, 1 cannot be told" in done.err
    labels = files.Labels(tmp_path / "detections.labels.h5")
    assert labels.classes == ["dog", "cat; small", "cow"]
    assert labels.label.tolist() == [[1, -1, 1], [-1, 1, -1], [0, -1, -1]]
    assert list(labels.key) == ["a.wav", "a.wav", "dir/b, c.wav"]
    assert labels.start.tolist() == [1.0, 1.0, 0.25] and labels.end[2] == pytest.approx(61.234568)
    assert run("info", tmp_path / "detections.labels.h5", "--verify").status == 0
    assert "is up to date" in run("label-clusters", table, "--answers", answers).err


def test_a_page_asks_about_each_event():
    made = page.build(review.groups(EVENTS), ["dog"])
    assert made.html.count("score 0.900") == 1 and made.html.count('"asked": "dog"') == 2
    assert set(made.missing) == {event.path for event in EVENTS}


def test_a_budget_asks_about_as_many_of_each_class():
    found = [Event("a.wav", float(i), i + 1.0, "often" if i % 10 else "seldom") for i in range(100)]
    for budget, often, seldom in ((6, 3, 3), (40, 30, 10), (100, 90, 10), (None, 90, 10)):
        chosen = review.choose(found, budget, seed=1)
        assert Counter(event.name for event in chosen) == Counter(often=often, seldom=seldom)
        assert chosen == sorted(chosen, key=lambda event: event.start)
    assert review.choose(found, 6, seed=1) == review.choose(found, 6, seed=1) != review.choose(found, 6, seed=2)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["", "", "", ""], "has no answer; fill in the column class"),
        (["dog; none", "", "", ""], "line 2: 'dog; none' says both a class and none"),
    ],
)
def test_answers_that_cannot_be_have_their_line(answers, said, table, tmp_path):
    done = run("label-clusters", table, "--answers", sheet(tmp_path / "s.csv", *answers), "-o", tmp_path / "l.h5")
    assert done.status == 1 and said in done.err and not (tmp_path / "l.h5").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("cluster,file,clip,start,end,class\n", "has no column 'asked'; give the sheet that the page of these events"),
        ("asked,file,start,end,class\ndog,a.wav,1,3,dog\n", "line 2: 'dog' was not found in 'a.wav' from 1 to 3 s"),
        ("asked,file,start,end,class\ndog,a.wav,one,2,dog\n", "line 2: start or end is no number"),
        ("asked,file,start,end,class\n" + 2 * "dog,a.wav,1,2,dog\n", "line 3 answers a question for the second time"),
        ("", "is empty"),
    ],
)
def test_sheets_that_do_not_fit_have_their_line(lines, said, table, tmp_path):
    (tmp_path / "s.csv").write_text(lines)
    done = run("label-clusters", table, "--answers", tmp_path / "s.csv", "-o", tmp_path / "l.h5")
    assert done.status == 1 and said in done.err and not (tmp_path / "l.h5").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "a table of events is reviewed in a page; give --page, or --answers"),
        (("--page", "p.html", "--answers", "s.csv"), 2, "give --page, or --answers"),
        (("--page", "p.html", "--order", "size"), 2, "not with a table of events; leave out --order"),
        (("--questions", "q.csv"), 2, "leave out --questions"),
        (("--page", "p.csv"), 2, "would be HTML"),
        (("--page", "p.html"), 1, "the sound of no question was found"),
        (("--answers", "gone.csv"), 2, "gone.csv does not exist"),
    ],
)
def test_bad_options_have_their_line(words, status, said, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("label-clusters", table, *words)
    assert done.status == status and said in " ".join(done.err.split()), done.err
    assert [path.name for path in tmp_path.iterdir()] == [table.name]


def test_a_table_without_events_or_columns_has_its_line(tmp_path):
    (tmp_path / "d.csv").write_text(HEAD)
    done = run("label-clusters", tmp_path / "d.csv", "--page", tmp_path / "p.html")
    assert done.status == 1 and "d.csv holds no event to review" in done.err
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    done = run("label-clusters", tmp_path / "d.csv", "--page", tmp_path / "p.html")
    assert done.status == 1 and "d.csv has no column 'start_s'" in done.err
    done = run("label-clusters", tmp_path / "gone.csv", "--page", tmp_path / "p.html")
    assert done.status == 2 and "gone.csv does not exist" in done.err


def test_labels_of_reviewed_events_calibrate(toy, tmp_path):
    """Answer by the truth what a recogniser hears, and choose thresholds by the answers."""
    model = tmp_path / "recogniser.safetensors"
    words = ("--objective", "classification", "--labels", toy.labels, "--steps", 4, "--batch-size", 8, "--size", 16)
    assert run("train", toy.features, *words, "-q", "-o", model).status == 0
    trained = load_model(model, "cpu", "float32")
    Job(files.Features(toy.features), trained, layer="probabilities", hop=0.48).run(tmp_path / "scores.h5")
    heard = Heard(files.Embeddings(tmp_path / "scores.h5"), trained.classes)
    found = list(events(heard, Rule(0.0, None, 0.0, 0.0, 0)))
    assert {event.name for event in found} == set(trained.classes)
    answers = {row: (event.name,) * (event.name in event.path.rsplit("/")[-1]) for row, event in enumerate(found)}
    with files.create(tmp_path / "l.h5", "labels", inputs=[], made_from="", attributes={}) as sink:
        review.write(sink, found, answers)
    own, true = (calibrate(heard, files.Labels(path)) for path in (tmp_path / "l.h5", toy.labels))
    assert own.classes == true.classes
    for name, one, other in zip(own.classes, own.chosen, true.chosen, strict=True):
        assert (one.positives, one.windows) == (other.positives, other.windows), name
        assert np.isclose(one.threshold, other.threshold)
