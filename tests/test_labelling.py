"""Labels from clusters: budgets, who is asked, how far answers reach; and the sheets that people fill in."""

import itertools

import numpy as np
import pytest

from soundssl import labelling
from soundssl.labelling import sheets

WINDOWS, CLUSTERS = 500, 30


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def cluster(generator) -> np.ndarray:
    """Return clusters of unequal sizes, some of them empty, some windows in none."""
    drawn = (CLUSTERS * generator.random(WINDOWS) ** 2).astype(int)
    return np.where(np.isin(drawn, (3, 7)), -1, drawn)


@pytest.fixture
def similarity(generator) -> np.ndarray:
    return np.round(generator.random(WINDOWS), 2)  # with ties


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# Whom to ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", labelling.ORDERS)
def test_every_cluster_in_use_is_asked_about_once(cluster, how):
    asked = labelling.order(cluster, how, draw(0), np.eye(cluster.max() + 1))
    assert sorted(asked) == sorted(set(cluster[cluster >= 0]))


def test_by_size_the_largest_come_first_and_equals_by_number(cluster):
    asked = labelling.order(cluster, "size", draw(0))
    size = np.bincount(cluster[cluster >= 0])[asked]
    assert [(-count, number) for count, number in zip(size, asked, strict=True)] == sorted(
        zip(-size, asked, strict=True)
    )


def test_the_diverse_order_is_that_of_a_loop_and_a_larger_budget_only_adds(generator):
    cluster = generator.choice(30, 400, p=np.arange(1, 31) / 465)
    mean = generator.normal(size=(30, 5))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    used, size = np.unique(cluster, return_counts=True)
    expected = [int(used[size.argmax()])]
    while len(expected) < len(used):
        score = {
            number: count * min(1 - mean[number] @ mean[other] for other in expected)
            for number, count in zip(used.tolist(), size, strict=True)
            if number not in expected
        }
        expected.append(max(score, key=score.get))
    assert labelling.order(cluster, "diverse", draw(0), mean).tolist() == expected
    some = labelling.order(cluster, "diverse", draw(0), mean, budget=9)
    assert some[:9].tolist() == expected[:9] and sorted(some) == sorted(used)


def test_of_twins_the_diverse_order_asks_one_before_a_smaller_stranger():
    cluster = np.repeat([0, 1, 2], [9, 8, 3])
    mean = np.array([[1.0, 0.0], [0.999, 0.0447], [0.0, 1.0]])
    assert labelling.order(cluster, "size", draw(0)).tolist() == [0, 1, 2]
    assert labelling.order(cluster, "diverse", draw(0), mean).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="needs the mean of each cluster"):
        labelling.order(cluster, "diverse", draw(0))


@pytest.mark.parametrize("how", labelling.ASKS)
def test_who_is_asked_is_a_member_and_a_larger_budget_only_adds(cluster, similarity, how):
    chosen = labelling.order(cluster, "random", draw(1))
    whole = labelling.ask(cluster, chosen, how, similarity, similarity, draw(2))
    assert (cluster[whole] == chosen).all()
    assert (labelling.ask(cluster, chosen[:9], how, similarity, similarity, draw(2)) == whole[:9]).all()


def test_central_is_the_most_similar_and_confident_the_surest(cluster, similarity, generator):
    confidence = np.round(generator.random(WINDOWS), 1)
    chosen = labelling.order(cluster, "size", draw(0))
    central = labelling.ask(cluster, chosen, "central", similarity, confidence, draw(0))
    confident = labelling.ask(cluster, chosen, "confident", similarity, confidence, draw(0))
    for number, nearest, surest in zip(chosen, central, confident, strict=True):
        members = cluster == number
        assert similarity[nearest] == similarity[members].max()
        assert confidence[surest] == confidence[members].max()
        assert similarity[surest] == similarity[members & (confidence == confidence[surest])].max()


def test_every_member_is_as_likely_to_be_asked(cluster, similarity):
    members = np.flatnonzero(cluster == 1)
    drawn = [labelling.ask(cluster, np.array([1]), "random", similarity, similarity, draw(s))[0] for s in range(4000)]
    counts = np.array([(np.array(drawn) == row).sum() for row in members])
    assert counts.sum() == 4000
    assert ((counts - 4000 / len(members)) ** 2).sum() / (4000 / len(members)) < 2 * len(members)  # chi square


def test_the_same_seed_asks_the_same(cluster, similarity):
    def plan(seed):
        generator = draw(seed)
        chosen = labelling.order(cluster, "random", generator)
        return labelling.ask(cluster, chosen, "random", similarity, similarity, generator).tolist()

    assert plan(3) == plan(3) != plan(4)


def test_random_windows_are_all_windows_once():
    drawn = labelling.draw(100, draw(0))
    assert sorted(drawn) == list(range(100)) and drawn.tolist() != labelling.draw(100, draw(1)).tolist()


# How answers spread -----------------------------------------------------------------------------------------------


def asked_of(cluster, similarity, count, how="random"):
    chosen = labelling.order(cluster, "size", draw(0))[:count]
    return labelling.ask(cluster, chosen, how, similarity, similarity, draw(0))


def test_whole_clusters_take_the_answer_and_no_other_window(cluster, similarity):
    asked = asked_of(cluster, similarity, 11)
    rows, of = labelling.spread(cluster, asked, similarity, 1.0)
    assert rows.tolist() == np.flatnonzero(np.isin(cluster, cluster[asked])).tolist()
    assert (cluster[rows] == cluster[asked[of]]).all()


@pytest.mark.parametrize("share", [0.01, 0.07, 0.5, 0.9])
@pytest.mark.parametrize("how", ["random", "central"])
def test_a_share_takes_the_one_asked_and_the_nearest(cluster, similarity, share, how):
    asked = asked_of(cluster, similarity, 11, how)
    rows, of = labelling.spread(cluster, asked, similarity, share)
    for question, row in enumerate(asked):
        members, taken = np.flatnonzero(cluster == cluster[row]), rows[of == question]
        assert row in taken and set(taken) <= set(members)
        assert len(taken) == max(1, int(np.ceil(round(share * len(members), 9))))
        others, left = similarity[np.setdiff1d(taken, row)], similarity[np.setdiff1d(members, taken)]
        assert not len(others) or not len(left) or others.min() >= left.max()


def test_seven_of_a_hundred_are_seven():
    rows, _ = labelling.spread(np.zeros(100, int), np.array([5]), np.arange(100.0), 0.07)
    assert rows.tolist() == [5, 94, 95, 96, 97, 98, 99]


def test_a_smaller_share_is_part_of_a_larger_one(cluster, similarity):
    asked = asked_of(cluster, similarity, 11)
    parts = [set(labelling.spread(cluster, asked, similarity, share)[0]) for share in (0.1, 0.3, 0.8, 1.0)]
    assert all(small <= large for small, large in itertools.pairwise(parts))


def test_windows_on_their_own_label_themselves():
    asked = np.array([4, 0, 2])
    rows, of = labelling.spread(np.arange(6), asked, np.zeros(6), 1.0)
    assert rows.tolist() == [0, 2, 4] and asked[of].tolist() == [0, 2, 4]


def test_no_question_no_label(cluster, similarity):
    assert labelling.spread(cluster, np.empty(0, np.int64), similarity, 1.0)[0].tolist() == []


def test_the_budget_is_never_exceeded():
    named = np.array([True, False, False, True, True, False])
    for budget in range(1, 9):
        assert labelling.spent(named, budget, free=False) == min(budget, 6)
        count = labelling.spent(named, budget, free=True)
        assert named[:count].sum() == min(budget, 3) and count <= 6


def test_refusals_name_the_value(cluster, similarity):
    with pytest.raises(ValueError, match="no order is called 'bigness'; there are size, diverse, random"):
        labelling.order(cluster, "bigness", draw(0))
    with pytest.raises(ValueError, match="no way to ask is called 'loud'"):
        labelling.ask(cluster, np.array([1]), "loud", similarity, similarity, draw(0))
    with pytest.raises(ValueError, match="cluster 3 has no member"):
        labelling.ask(cluster, np.array([1, 3]), "central", similarity, similarity, draw(0))
    with pytest.raises(ValueError, match=r"between 0 and 1, not 1\.5"):
        labelling.spread(cluster, np.array([0]), similarity, 1.5)
    with pytest.raises(ValueError, match="2 questions went to 1 clusters"):
        labelling.spread(np.zeros(3, int), np.array([0, 1]), np.zeros(3), 1.0)


def test_presets_are_plans_that_exist():
    assert set(labelling.PRESETS) == {"best", "paper"}
    for plan in labelling.PRESETS.values():
        assert plan.order in labelling.ORDERS and plan.ask in labelling.ASKS and 0 < plan.spread <= 1


# Sheets -----------------------------------------------------------------------------------------------------------

QUESTIONS = [
    sheets.Question(7, "videos/a, b.mp4", "a, b.mp4", 2.88, 3.84),
    sheets.Question(0, 'videos/"c".mp4', '"c".mp4', 0.0, 0.96),
    sheets.Question(None, "é.wav", "é.wav", 12345.67, 12346.63),
]
ANSWERS = ["dog; cat", "none", "Hund, groß"]


def filled() -> str:
    head, *rest = (sheets.write([]), *map(sheets.write_line, QUESTIONS, ANSWERS))
    return head + "".join(rest)


def expected() -> list[sheets.Line]:
    return [
        sheets.Line(i, q.cluster, q.clip, q.start, a)
        for i, (q, a) in enumerate(zip(QUESTIONS, ANSWERS, strict=True), 2)
    ]


def test_a_sheet_comes_back_as_it_was():
    assert sheets.read(filled().encode(), "q.csv") == expected()
    assert [line.answer for line in sheets.read(sheets.write(QUESTIONS).encode(), "q.csv")] == ["", "", ""]


def as_a_spreadsheet_saves(delimiter: str) -> str:
    """Quote what needs it, with this delimiter, and decimal commas where that is a semicolon."""
    import csv
    import io

    rows, text = csv.reader(io.StringIO(filled())), io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    for number, row in enumerate(rows):
        times = [cell.replace(".", ",") if delimiter == ";" and number else cell for cell in row[3:5]]
        writer.writerow([*row[:3], *times, *row[5:]])
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_do_is_undone(delimiter, coding):
    assert sheets.read(as_a_spreadsheet_saves(delimiter).encode(coding), "q.csv") == expected()


def test_more_of_what_spreadsheets_do():
    text = as_a_spreadsheet_saves(";")
    named = sheets.read(("sep=;\r\n" + text + ";;;;;\r\n\r\n").encode(), "q.csv")
    assert [line[1:] for line in named] == [line[1:] for line in expected()]
    turned = "class;start;clip;cluster\r\ndog;1,5;a.wav;4,0\r\n"
    assert sheets.read(turned.encode(), "q.csv") == [sheets.Line(2, 4, "a.wav", 1.5, "dog")]


HEAD = "cluster,file,clip,start,end,class\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "q.csv is empty; write a sheet with --questions"),
        (b"a,b\n1,2\n", "q.csv line 1 has no column 'cluster'; keep the first line"),
        (HEAD.encode() + b"1,f,a,0,1,dog\n1,f,a,0,1,gr\xfcn\n", "q.csv line 3 is not UTF-8; save it as CSV"),
        ((HEAD + "1,f,,0,1,dog\n").encode(), "q.csv line 2 names no clip"),
        ((HEAD + "\n1,f,a,May 3,1,dog\n").encode(), "q.csv line 3: start 'May 3' is no number"),
        ((HEAD + "x,f,a,0,1,dog\n").encode(), "q.csv line 2: cluster 'x' is no number"),
        ((HEAD + "1.5,f,a,0,1,dog\n").encode(), "q.csv line 2: cluster '1.5' is no whole number"),
        ((HEAD + "1,f,a,0,1,dog,cat\n").encode(), "q.csv line 2 has 7 cells, its header 6; put a cell with a comma"),
        ((HEAD + '1,f,"a,0,1,dog\n').encode(), "q.csv line 2 is no CSV: .*; look for a lone quotation mark"),
    ],
)
def test_broken_sheets_are_named_with_line_and_remedy(content, message):
    with pytest.raises(sheets.SheetError, match=message):
        sheets.read(content, "q.csv")


def test_answers_become_labels():
    given, classes = sheets.parse_all(["dog", "Dog; cat", "none", "?", "Cannot tell", "none of these", " cat ;"])
    assert classes == ["dog", "cat"]
    assert labelling.encode(given, classes).tolist() == [[1, 0], [1, 1], [0, 0], [-1, -1], [-1, -1], [0, 0], [0, 1]]


@pytest.mark.parametrize("answer", ["", " ; ", "dog; none", "?; dog"])
def test_answers_that_are_none_are_refused(answer):
    with pytest.raises(ValueError, match=r"there is no answer|says both a class and none"):
        sheets.parse(answer)


def test_a_line_finds_its_window_and_no_other(generator):
    clip = np.repeat([0, 1, 2], [4, 5, 6])
    start = np.concatenate([np.arange(n) * 0.96 for n in (4, 5, 6)])
    order = generator.permutation(15)
    cluster = np.arange(15) % 4
    finder = sheets.Finder(["a", "b", "c"], clip[order], start[order], cluster[order])
    for row, at in enumerate(order):
        line = sheets.Line(2, int(cluster[at]), "abc"[clip[at]], round(start[at], 2), "dog")
        assert finder.find(line) == row
        assert finder.match([line], "q.csv", "do so") == {row: line}
    with pytest.raises(sheets.SheetError, match=r"q.csv line 5: no clip is called 'd'; write it anew"):
        finder.match([sheets.Line(5, 1, "d", 0.0, "dog")], "q.csv", "write it anew")
    with pytest.raises(ValueError, match=r"none of the chosen windows of 'a' starts at 3\.84 s"):
        finder.find(sheets.Line(2, 0, "a", 3.84, "dog"))
    with pytest.raises(ValueError, match="it names cluster 9, the window is asked about for cluster 0"):
        finder.find(sheets.Line(2, 9, "a", 0.0, "dog"))
    twice = [sheets.Line(2, 0, "a", 0.0, "dog"), sheets.Line(3, 0, "b", 0.0, "cat")]
    with pytest.raises(sheets.SheetError, match="lines 2 and 3 answer one question; delete one"):
        finder.match(twice, "q.csv", "")
