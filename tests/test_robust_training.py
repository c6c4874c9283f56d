"""Robust training: the objective with each option against the losses of its parts, and options that cannot be meant."""

import dataclasses

import builder
import numpy as np
import pytest
import torch

from soundssl import files, models
from soundssl.objectives import Inputs, classification
from soundssl.objectives.classification import Examples, Objective, Options
from soundssl.ops import losses, robust

CLIPS, CLASSES = 12, 3
KEYS = [f"clip-{i:02}" for i in range(CLIPS)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Clips of noise, half of them marked as noisy; the last one has two classes and an unknown one."""
    folder, generator = tmp_path_factory.mktemp("robust"), np.random.default_rng(0)
    builder.features(folder / "f.h5", [generator.normal(size=(20, 16)) for _ in range(CLIPS)],
                     attributes={"window_frames": 16, "bands": 16})  # fmt: skip
    label = np.eye(CLASSES, dtype=np.int8)[np.arange(CLIPS) % CLASSES]
    label[-1] = [1, 1, -1]
    builder.labels(folder / "l.h5", builder.whole(KEYS), ["a", "b", "c"], label,
                   **{"segment/noisy": np.arange(CLIPS) % 2})  # fmt: skip
    return Inputs(files.Features(folder / "f.h5"), np.ones(CLIPS, bool), labels=files.Labels(folder / "l.h5"))


def made(inputs, epoch: int = 0, **chosen):
    """Return the objective, the batch of all clips, its logits and log-probabilities."""
    torch.manual_seed(0)
    options = Options(**chosen)
    objective = Objective(models.build("plain", 8, 16, 16, norm="group"), inputs, options).eval()
    batch = Examples(inputs, options, 0).__getitems__([(epoch, row) for row in range(CLIPS)])
    with torch.no_grad():
        logits = objective.classifier(objective.encoder(batch["window"].float()))
    return objective, batch, logits, robust.log_probability(logits, batch["label"] >= 0)


def test_each_robust_loss_is_that_of_its_part(inputs):
    for chosen, part in {
        (("robust", "lq"), ("q", 0.4)): lambda log_p, t: robust.lq(log_p, t, 0.4),
        (("robust", "soft"), ("beta", 0.6)): lambda log_p, t: robust.bootstrapping(log_p, t, 0.6),
        (("robust", "hard"),): lambda log_p, t: robust.bootstrapping(log_p, t, 0.3, hard=True),
        (): robust.cross_entropy,
    }.items():
        objective, batch, logits, log_p = made(inputs, **dict(chosen))
        target = robust.distribution(batch["label"])
        assert torch.allclose(objective(batch, 0.0)[0], part(log_p, target).mean(), atol=1e-5)
        selective, batch, *_ = made(inputs, **dict(chosen), selective=True)
        both = torch.where(batch["noisy"], part(log_p, target), robust.cross_entropy(log_p, target))
        assert torch.allclose(selective(batch, 0.0)[0], both.mean(), atol=1e-5)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    "chosen",
    [
        {"robust": "lq", "q": 0.4, "selective": True},
        {"robust": "soft", "beta": 0.6, "through": True},
        {"robust": "hard"},
        {"robust": "lq", "q": 0.4, "discard": "percentile", "discard_q": 0.7, "discard_from": 1},
        {"discard": "maximum"},
        {"smoothing": 0.1, "smoothing_step": 0.05, "noisy_classes": "a"},
        {"mixup": 0.4},
        {"mixup": 0.4, "mixup_with": "between", "loss": "bce"},
        {"mixup": 0.4, "mixup_from": 1},
    ],
    ids=str,
)
def test_every_option_learns_in_half_precision_too(inputs, chosen):
    """The loss of the mixed precision that a processor or a GPU of today chooses is near that of float32."""
    objective, batch, *_ = made(inputs, epoch=1, **chosen)
    wanted = objective(batch, 0.0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(batch, 0.0)[0]
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), abs=0.05)


def test_discarding_begins_with_its_epoch_and_divides_by_what_is_kept(inputs):
    chosen = {
        "robust": "lq",
        "q": 0.7,
        "discard": "percentile",
        "discard_at": 70.0,
        "discard_from": 2,
        "discard_q": 0.5,
    }
    before, batch, _, log_p = made(inputs, 1, **chosen)
    target = robust.distribution(batch["label"])
    loss, figures = before(batch, 0.0)
    assert torch.allclose(loss, robust.lq(log_p, target, 0.7).mean(), atol=1e-5) and figures["kept"] == 1
    after, batch, _, log_p = made(inputs, 2, **chosen)
    each = robust.lq(log_p, target, 0.5)
    loss, figures = after(batch, 0.0)
    assert torch.allclose(loss, each.sort().values[:8].mean(), atol=1e-5) and figures["kept"] == pytest.approx(8 / 12)


def test_what_is_discarded_touches_no_gradient(inputs):
    objective, batch, *_ = made(inputs, discard="maximum", discard_at=0.9)
    window = batch["window"].float().requires_grad_()
    loss, figures = objective({**batch, "window": window}, 0.0)
    loss.backward()
    touched = window.grad.flatten(1).abs().sum(1) > 0
    assert 0 < figures["kept"] < 1 and touched.float().mean() == pytest.approx(float(figures["kept"]))


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("partners", ["inside", "between"])
def test_mixup_mixes_windows_and_targets(inputs, loss, partners):
    objective, batch, *_ = made(inputs, loss=loss, mixup=0.4, mixup_with=partners)
    inside = partners == "inside"
    other = {name: batch[name].roll(1, 0) if inside else batch[f"partner{end}"] for name, end in
             (("window", ""), ("label", "_label"))}  # fmt: skip
    share = batch["share"]
    assert share.min() >= 0 and share.max() <= 1 and len(set(share.tolist())) > 6
    window = robust.mixed(batch["window"].float(), other["window"].float(), share)
    known = (batch["label"] >= 0) & (other["label"] >= 0)
    with torch.no_grad():
        logits = objective.classifier(objective.encoder(window))
    if loss == "bce":
        target = robust.mixed((batch["label"] == 1).float(), (other["label"] == 1).float(), share)
        wanted = losses.weighted_mean(*losses.soft_binary_cross_entropy(logits, target, known))
    else:
        target = robust.mixed(robust.distribution(batch["label"]), robust.distribution(other["label"]), share) * known
        wanted = robust.cross_entropy(robust.log_probability(logits, known), target).mean()
    assert torch.allclose(objective(batch, 0.0)[0], wanted, atol=1e-4)


def test_mixup_waits_for_its_epoch_and_draws_by_example(inputs):
    plain, batch, *_ = made(inputs)
    waiting, mixed, *_ = made(inputs, mixup=0.4, mixup_from=1)
    assert torch.allclose(plain(batch, 0.0)[0], waiting(mixed, 0.0)[0], atol=1e-6)
    later = Examples(inputs, waiting.options, 0).__getitems__([(1, row) for row in range(CLIPS)])
    assert not torch.allclose(later["share"], mixed["share"])
    alone = Examples(inputs, dataclasses.replace(waiting.options, mixup_with="between"), 0)
    assert torch.equal(alone.__getitems__([(1, 3)])["share"], later["share"][3:4])


def test_smoothing_depends_on_how_often_a_class_is_wrong(inputs):
    objective, batch, _, log_p = made(inputs, smoothing=0.2, smoothing_step=0.1, noisy_classes="b")
    amount = torch.where((batch["label"][:, 1] == 1), 0.3, 0.1)
    target = robust.smoothed(robust.distribution(batch["label"]), batch["label"] >= 0, amount)
    assert torch.allclose(objective(batch, 0.0)[0], robust.cross_entropy(log_p, target).mean(), atol=1e-5)
    even, batch, _, log_p = made(inputs, smoothing=0.15)
    target = robust.smoothed(robust.distribution(batch["label"]), batch["label"] >= 0, 0.15)
    assert torch.allclose(even(batch, 0.0)[0], robust.cross_entropy(log_p, target).mean(), atol=1e-5)


def test_balanced_examples_say_what_they_draw(inputs):
    label = np.eye(CLASSES, dtype=np.int8)[[0] * 9 + [1, 1, 2]]
    skewed = dataclasses.replace(inputs, labels=_like(inputs.labels, label))
    examples = Examples(skewed, Options(balance=1.0), 0)
    drawn = np.concatenate([examples.arrange(epoch) for epoch in range(100)])
    counts = label[drawn].sum(0) / 1200
    assert np.abs(counts - 1 / 3).max() < 0.04 and len(examples.arrange(0)) == CLIPS
    assert "in brackets what is there" in examples.notes[0] and "a " in examples.notes[0]
    natural = Examples(skewed, Options(), 0)
    assert natural.notes == [] and sorted(natural.arrange(3)) == list(range(CLIPS))
    queue = Examples(skewed, Options(balance_by="queue"), 0)
    assert label[queue.arrange(0)].sum(0).tolist() == [4, 4, 4]


def _like(labels: files.Labels, label: np.ndarray) -> files.Labels:
    other = files.Labels(labels.path)
    other.label = label
    return other


@pytest.mark.parametrize(
    ("chosen", "fact"),
    [
        ({"q": 0.0}, "q is 0"),
        ({"beta": 1.5}, "beta is 1.5"),
        ({"balance": -1.0}, "balance is -1"),
        ({"loss": "bce", "robust": "lq"}, "are of exclusive classes"),
        ({"discard": "percentile", "discard_at": 101.0}, "a percentile is at most 100"),
        ({"smoothing": 0.1, "smoothing_step": 0.2, "noisy_classes": "a"}, "smoothing less and more"),
        ({"smoothing": 0.2, "smoothing_step": 0.1}, "needs noisy_classes"),
        ({"noisy_classes": "x"}, "'x', which is no class; there are a, b, c"),
        ({"selective": True}, "needs labels with the column segment/noisy"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(inputs, chosen, fact):
    labels = files.Labels(inputs.labels.path)
    labels.noisy = None
    with pytest.raises(ValueError, match=fact):
        classification.check(Options(**chosen), labels)
