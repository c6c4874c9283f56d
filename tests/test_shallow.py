"""The small classifier on frozen embeddings: what it reports, what teaches it, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from test_evaluations import CLASSES, clips, overall, run

from soundssl.evaluations import shallow
from soundssl.evaluations.table import Table


@pytest.mark.parametrize("hidden", [(), (16,), (16, 16)])
def test_shallow_learns_and_reports_every_metric(hidden):
    rows = overall(run("shallow", clips(4.0), hidden=hidden))
    wanted = ["mAP", "AUC", "dprime", "dprime_of_mean_auc", "lwlrap", "top1", "top5", "skipped_classes"]
    assert list(rows) == [*wanted, "training_clips"]
    assert rows["mAP"]["value"] > 0.9 > 2 * rows["mAP"]["chance"] and rows["top1"]["value"] > 0.85
    assert rows["top5"]["value"] == rows["top5"]["chance"] == 1.0 and rows["training_clips"]["value"] == 80.0
    assert rows["top1"]["chance"] == pytest.approx(0.2)


def test_a_few_labels_a_class_are_drawn_and_averaged():
    data = clips(3.0)
    few = run("shallow", data, per_class=3, draws=2)
    assert overall(few)["training_clips"]["value"] == 15.0 and overall(few)["training_clips"]["count"] == 2
    assert overall(run("shallow", data))["mAP"]["value"] > overall(few)["mAP"]["value"] > 0.4
    drawn = shallow.draw_clips(data.label, data.part(0), 3, np.random.default_rng(0))
    assert data.label[drawn].sum(axis=0).tolist() == [3] * 5 and not (drawn & ~data.part(0)).any()


def test_unknown_labels_teach_nothing():
    """Of two classes the second is unknown in training: its row of weights stays as it was drawn."""
    data, options = clips(1.0), shallow.Options(hidden=(), epochs=2)
    label = data.label[:, :2].copy()
    label[:, 1] = -1
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, label)
    drawn, taught = (
        shallow.fit(windows, data.part(0), None, dataclasses.replace(options, epochs=epochs), 0).layers[0].weight
        for epochs in (0, 2)
    )
    assert torch.equal(drawn[1], taught[1]) and not torch.equal(drawn[0], taught[0])


def test_test_labels_never_reach_training():
    data, options = clips(1.0), shallow.Options(hidden=(), epochs=2, per_class=5, draws=1)
    mixed = data.label.copy()
    mixed[~data.part(0)] = -1
    mixed[data.part(1)] = np.roll(data.label[data.part(1)], 1, axis=0)
    windows = [shallow.Windows(torch.from_numpy(data.embedding), data.clip, label) for label in (data.label, mixed)]
    one, two = (shallow.fit(w, data.part(0), None, options, 3) for w in windows)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    sides = {"train": data.part(0), "test": data.part(1)}
    true, false = data.table(**sides), dataclasses.replace(data, label=mixed).table(**sides)
    assert shallow.evaluate(true, options) != shallow.evaluate(false, options)


def test_inputs_are_standardised_by_training_windows():
    data = clips(2.0)
    data.embedding[:, 3] = 7.0
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    rows = windows.of(data.part(0))
    mean, deviation = shallow.mean_and_deviation(windows, rows)
    np.testing.assert_allclose(mean, data.embedding[rows].mean(axis=0), atol=1e-5)
    expected = data.embedding[rows].std(axis=0)
    expected[3] = 1.0
    np.testing.assert_allclose(deviation, expected, rtol=1e-4)
    scaled = dataclasses.replace(data, embedding=data.embedding * 1000 - 5)
    assert overall(run("shallow", scaled))["mAP"]["value"] == pytest.approx(
        overall(run("shallow", data))["mAP"]["value"], abs=0.03
    )


def test_clip_scores_are_mean_probabilities_of_windows():
    data = clips(1.0, 12)
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    network = shallow.fit(windows, data.part(0), None, shallow.Options(epochs=1), 0)
    probability = network(windows.embedding).sigmoid().detach().numpy().reshape(12, 2, -1).mean(axis=1)
    np.testing.assert_allclose(
        shallow.clip_scores(network, windows, data.part(1)), probability[data.part(1)], rtol=1e-5
    )


def test_best_validation_epoch_is_kept_and_steps_bound(monkeypatch):
    data = clips(1.0)
    windows = shallow.Windows(torch.from_numpy(data.embedding), data.clip, data.label)
    options = shallow.Options(hidden=(), epochs=50, patience=2, batch_size=16)
    reached = iter([0.3, 0.9, 0.5, 0.4, 0.99])
    seen = []

    def score(network, *_):
        seen.append([p.detach().clone() for p in network.parameters()])
        return np.zeros((80, 5))

    class Mean:
        @property
        def mean(self):
            return next(reached)

    monkeypatch.setattr(shallow, "clip_scores", score)
    monkeypatch.setattr(shallow.metrics, "per_class", lambda *_: Mean())
    network = shallow.fit(windows, data.part(0), data.part(1), options, 0)
    assert len(seen) == 4
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), seen[1], strict=True))
    bounded = dataclasses.replace(options, steps=10)  # one epoch of 160 windows is ten steps
    network = shallow.fit(windows, data.part(0), None, bounded, 0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), seen[0], strict=True))


def test_malformed_shallow_is_named():
    data = clips(1.0, 30)
    train, test = data.part(0), data.part(1)
    with pytest.raises(ValueError, match="10 test clips are in another part too"):
        shallow.evaluate(data.table(train=train, test=train))
    with pytest.raises(ValueError, match="30 test clips are in another part too"):
        shallow.evaluate(data.table())
    with pytest.raises(ValueError, match="test must pick some of 30 clips: 0 of"):
        shallow.evaluate(data.table(train=train, test=np.zeros(30, bool)))
    with pytest.raises(ValueError, match="1 test clips have no window"):
        shallow.evaluate(Table(data.embedding[4:], data.label, CLASSES, clip=data.clip[4:], train=train, test=test))
    data.label[train] = -1
    with pytest.raises(ValueError, match="none of 10 training clips has both a window and a known label"):
        shallow.evaluate(data.table(train=train, test=test))
