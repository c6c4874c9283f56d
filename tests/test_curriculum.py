"""Curricula: what is misspelled is refused before any file is opened, with the nearest name that exists."""

import pytest

from soundssl import curriculum, objectives


def stage(**keys) -> dict:
    return {"stage": [{"objective": {"triplet": {}}, **keys}]}


def test_one_stage_from_data_has_the_defaults():
    plan = curriculum.from_data(stage(steps=7))
    assert plan.stage[0].steps == 7 and plan.stage[0].objective == {"triplet": {"weight": 1.0}}
    assert plan == curriculum.from_data({**stage(steps=7), "encoder": curriculum.Curriculum().encoder})


def test_toml_gives_what_data_gives(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('encoder = "vggish"\n[[stage]]\nsteps = 1_000\nobjective.triplet = { margin = 1, weight = 2 }\n')
    plan = curriculum.from_toml(path)
    assert plan.encoder == "vggish" and plan.stage[0].steps == 1000
    assert plan.stage[0].objective == {"triplet": {"margin": 1.0, "weight": 2.0}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"encodr": "plain", **stage()}, "the curriculum has the key 'encodr', .* did you mean encoder"),
        (stage(step=3), "the curriculum has the key 'step', which is not known; did you mean steps"),
        (stage(objective={"triplets": {}}), "names the objective 'triplets', which is not known; did you mean triplet"),
        (stage(objective={"triplet": {"margn": 1}}), "did you mean margin"),
        (stage(objective={"triplet": {"mining": "hard"}}), "mining .* is 'hard'; choose 'none', 'semihard'"),
        (stage(steps="many"), "steps .* is 'many'; it must be int"),
        (stage(steps=True), "steps .* is True; it must be int"),
        (stage(learning_rate="fast"), "learning_rate .* it must be float"),
        ({"stage": [{"steps": 3}]}, "names no objective"),
        ({**stage(), "encoder": "resnet51"}, "names the encoder 'resnet51', .* did you mean resnet50"),
        (
            {"stage": [{"steps": 1, "objective": {"triplet": {}}}, {"stps": 1}]},
            "stage 2 of the curriculum has .* did you",
        ),
        ({}, r"has no \[\[stage\]\]"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        curriculum.from_data(data)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("steps = = 3")
    with pytest.raises(ValueError, match=r"c\.toml is not a TOML file"):
        curriculum.from_toml(path)


def test_settings_are_read_as_toml_or_text():
    read = [curriculum.parse_value(text) for text in ("3", "0.5", "true", "semihard", '"a b"')]
    assert read == [3, 0.5, True, "semihard", "a b"]


PICTURES = {"stage": [{"objective": {"coincidence": {"modality": "image"}}}, {"objective": {"triplet": {}}}]}


@pytest.mark.parametrize("gpu, encoder, tower", [(False, "plain", "space-to-depth"), (True, "resnet50", "resnet50")])
def test_nets_that_nobody_chose_are_chosen_by_the_device(gpu, encoder, tower):
    settled = curriculum.settle(curriculum.from_data(PICTURES), gpu)
    assert settled.encoder == encoder and settled.stage[0].objective["coincidence"]["tower"] == tower
    assert "tower" not in settled.stage[1].objective["triplet"]
    assert curriculum.settle(settled, not gpu) == settled, "what is chosen stays"


def test_nets_go_on_as_the_model_has_them():
    chosen = {**PICTURES, "encoder": "vggish"}
    chosen["stage"] = [{"objective": {"coincidence": {"modality": "image", "tower": "vgg-small"}}}]
    before = curriculum.settle(curriculum.from_data(chosen), gpu=False).as_dict()
    after = curriculum.settle(curriculum.from_data(PICTURES), gpu=True, start=before)
    assert after.encoder == "vggish" and after.stage[0].objective["coincidence"]["tower"] == "vgg-small"


@pytest.mark.parametrize(
    ("name", "preset", "given", "kept"),
    [
        ("contrastive", "sound-events", {"temperature": 0.5, "views": "crops"}, {"hidden": 512, "noise": 0.01}),
        ("contrastive", "sound-scenes", {"augment": "none"}, {"views": "separated", "masks": 2}),
        ("coincidence", "correspondence", {"delta": 10.0, "tower": "auto"}, {"negatives": "random"}),
    ],
)
def test_what_is_given_wins_over_a_preset_even_where_it_is_the_default(name, preset, given, kept):
    plan = curriculum.from_data({"stage": [{"objective": {name: {"preset": preset, **given}}}]})
    found = plan.stage[0].objective[name]
    assert given.items() <= found.items() and kept.items() <= found.items()
    module = objectives.load(name)
    settled = module.settle(module.Options(**{key: value for key, value in found.items() if key != "weight"}))
    assert all(getattr(settled, key) == value for key, value in {**kept, **given}.items() if value != "auto")
    assert curriculum.replace(plan, {"size": 16}).stage == plan.stage
