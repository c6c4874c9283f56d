"""The trained model as an object: it says of a waveform what the command line says of the same sound in a file."""

import re
import subprocess
import sys

import builder
import numpy as np
import pytest
import soundfile
import torch
from stored_models import CLASSES, VALUES, WAVE, WINDOWS, unpack

import soundssl
from soundssl import files, models
from soundssl.commands import main
from soundssl.evaluations import reading
from soundssl.model import Model
from soundssl.ops import spectrogram

RATE, SECONDS = 44100, 3.3
ENCODERS = [name for name in VALUES if name != "mixit"]
PLAIN = ["--device", "cpu", "--precision", "float32", "--threads", "1", "-q"]


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert not ended.value.code


def sound_of(seconds: float = SECONDS, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """Return a chirp in noise, another in each channel. Shape: [samples, channels]."""
    generator, t = np.random.default_rng(0), np.arange(round(seconds * rate)) / rate
    chirps = [0.3 * np.sin(2 * np.pi * (300 * (c + 1) + 200 * t) * t) for c in range(channels)]
    return np.stack(chirps, 1) + generator.normal(0, 0.02, (len(t), channels))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write a recording of two channels at 44.1 kHz, its features and waveform, and the stored models."""
    folder = tmp_path_factory.mktemp("model")
    soundfile.write(folder / "sound.wav", sound_of(), RATE, "PCM_16")
    for name in VALUES:
        unpack(name, folder)
    command("featurize", folder / "sound.wav", "-o", folder / "f.h5", "-j", 1, "-q")
    return folder


def load(world, name: str) -> Model:
    return soundssl.load_model(world / f"{name}.safetensors", device="cpu", precision="float32")


def heard(world) -> np.ndarray:
    return soundfile.read(world / "sound.wav", dtype="float32")[0]


# ---------------------------------------------------------------- models of before


@pytest.mark.parametrize("name", ENCODERS)
def test_a_stored_encoder_and_its_head_give_what_they_gave(world, name):
    model = load(world, name)
    for layer, values in VALUES[name].items():
        output = model.output(layer)
        expected = np.array(values)
        if output.unit_length:
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert output.width == expected.shape[1]
        assert np.abs(output(WINDOWS) - expected).max() < 2e-5, layer
    assert model.classes == (CLASSES if name == "classification" else [])


def test_a_stored_separator_gives_what_it_gave(world):
    model = load(world, "mixit")
    tracks = model.separate(WAVE, model.rate)
    assert np.abs(tracks[:, ::800] - np.array(VALUES["mixit"]["tracks"])).max() < 2e-5
    assert np.abs(tracks.sum(0) - WAVE).max() < 1e-5


def test_a_stored_net_for_pictures_goes_on_under_its_new_name(world, tmp_path):
    from test_coincidence import write_videos

    start, output = world / "coincidence.safetensors", tmp_path / "m.safetensors"
    options = ["--objective", "coincidence", "--set", "modality=both", "--set", "hidden=8", "--size", 4]
    options += ["--steps", 1, "--batch-size", 2, "--learning-rate", 0, *PLAIN]
    command("train", write_videos(tmp_path / "v.h5"), "--init", start, *options, "-o", output)
    before, after = files.read_model(start), files.read_model(output)
    assert before.config["stage"][0]["objective"]["coincidence"]["tower"] == "folded"
    assert after.config["stage"][0]["objective"]["coincidence"]["tower"] == "space-to-depth"
    name = "head.coincidence.image.backbone.features.1.weight"
    assert np.array_equal(before.tensors[name], after.tensors[name])


# ---------------------------------------------------------------- as the command line has it


@pytest.mark.parametrize("hop", [0.96, 0.48])
@pytest.mark.parametrize("name", ENCODERS)
def test_an_array_has_the_embeddings_of_its_file(world, tmp_path, name, hop):
    model = load(world, name)
    embedding, start = model.embed(heard(world), rate=RATE, hop=hop)
    command("embed", world / "f.h5", "-m", model.path, "-o", tmp_path / "e.h5", "--hop", hop, *PLAIN)
    rows = files.Embeddings(tmp_path / "e.h5")
    assert embedding.dtype == np.float32 and len(embedding) == (3 if hop == 0.96 else 5)
    assert np.array_equal(start, rows.start)
    scale = np.abs(rows.embedding[:]).max()
    assert np.abs(embedding - rows.embedding[:]).max() < 1e-3 * scale
    length = np.linalg.norm(embedding, axis=1)
    assert np.allclose(length, 1, atol=1e-5) == (name != "classification")


@pytest.mark.parametrize("name", list(spectrogram.PRESETS))
def test_every_front_end_is_the_one_of_featurize(world, tmp_path, name):
    command("featurize", world / "sound.wav", "--preset", name, "-o", tmp_path / "f.h5", "-j", 1, "-q")
    source = files.Features(tmp_path / "f.h5")
    torch.manual_seed(0)
    network = models.build("plain", 4, source.bands, source.window, norm="group")
    config = {"encoder": "plain", "size": 4, "bands": source.bands, "frames": source.window, "norm": "group"}
    config |= {"unit_length": False, "heads": {}, "front_end": source.front_end()}
    tensors = {f"encoder.{key}": value.numpy() for key, value in network.state_dict().items()}
    files.write_model(tmp_path / "m.safetensors", tensors, config, inputs=[], made_from="test")
    command("embed", tmp_path / "f.h5", "-m", tmp_path / "m.safetensors", "-o", tmp_path / "e.npy", *PLAIN)
    model = soundssl.load_model(tmp_path / "m.safetensors", "cpu", "float32")
    embedding, start = model.embed(heard(world), RATE)
    rows = files.read_matrix(tmp_path / "e.npy")
    assert model.front_end == spectrogram.PRESETS[name] and embedding.shape == rows.shape
    assert np.abs(embedding - rows).max() < 1e-3 * np.abs(rows).max()
    assert model.window == pytest.approx(source.window / float(source.attributes["frame_rate"]))
    hop = {"vggish": 0.96, "mm-videos": 1.0, "bird": 0.96, "bat": 0.096, "panns": 1.0, "fsdnoisy18k": 1.0}.get(
        name, 50 * 220 / 22050
    )  # one window, or half a one as published
    assert len(start) > 1 and np.diff(start) == pytest.approx(hop)
    command("embed", tmp_path / "f.h5", "-m", tmp_path / "m.safetensors", "-o", tmp_path / "e.h5", *PLAIN)
    found = files.Embeddings(tmp_path / "e.h5")
    assert found.attributes["hop"] == pytest.approx(hop) and np.array_equal(found.start, start)
    builder.labels(tmp_path / "l.h5", builder.whole(found.clips.key.astype(str)), ["x"], [[1]])
    table = reading.read_embeddings(tmp_path / "f.h5", files.Labels(tmp_path / "l.h5"))
    assert len(table.value) == len(start), "evaluate cuts features as embed does"


def test_probabilities_and_projections_are_layers(world, tmp_path):
    for name, layer in (("classification", "probabilities"), ("contrastive", "projection")):
        model = load(world, name)
        command("embed", world / "f.h5", "-m", model.path, "--layer", layer, "-o", tmp_path / f"{layer}.npy", *PLAIN)
        found, start = model.embed(heard(world), RATE, hop=0.96, layer=layer)
        assert np.abs(found - files.read_matrix(tmp_path / f"{layer}.npy")).max() < 1e-3 and len(start) == 3
    score, start = load(world, "classification").probabilities(heard(world), rate=RATE)
    assert score.shape == (len(start), len(CLASSES)) and np.allclose(score.sum(1), 1, atol=1e-5)


def test_tracks_are_those_of_the_command_line(world, tmp_path):
    model = load(world, "mixit")
    more = ["--length", 1.5, "--overlap", 0.4, "-j", 1]
    command("separate", world / "sound.wav", "-m", model.path, "-o", tmp_path / "s.h5", *more, *PLAIN)
    source = files.Features(tmp_path / "s.h5")
    stored = [np.concatenate(list(source.blocks(row))) for row in range(len(source.clips))]
    tracks = model.separate(heard(world), rate=RATE, length=1.5, overlap=0.4)
    assert model.separates and model.rate == 16000 and tracks.shape == (2, len(stored[0]))
    assert np.abs(tracks - np.stack(stored[1:])).max() < 1e-4
    assert np.abs(tracks.sum(0) - stored[0]).max() < 1e-4


# ---------------------------------------------------------------- waveforms of every kind


def test_integers_are_divided_by_their_range_and_channels_averaged(world):
    model, wave = load(world, "triplet"), sound_of()
    expected = model.embed(wave, RATE)[0]
    for dtype, tolerance in ((np.int16, 1e-3), (np.int32, 1e-4), (np.float32, 1e-4), (np.uint8, 0.2)):
        bits = 8 * np.dtype(dtype).itemsize - 1
        scaled = wave if dtype == np.float32 else np.round(wave * 2**bits) + (2**bits if dtype == np.uint8 else 0)
        assert np.abs(model.embed(scaled.astype(dtype), RATE)[0] - expected).max() < tolerance, dtype
    alone = wave.mean(1)
    for same in (alone, alone[:, None], np.repeat(alone[:, None], 6, axis=1), list(alone), torch.from_numpy(alone)):
        assert np.abs(model.embed(same, RATE)[0] - expected).max() < 1e-4


def test_an_int16_array_is_what_a_file_of_16_bits_holds(world):
    model = load(world, "triplet")
    integers = soundfile.read(world / "sound.wav", dtype="int16")[0]
    assert np.abs(model.embed(integers, RATE)[0] - model.embed(heard(world), RATE)[0]).max() < 1e-6


@pytest.mark.parametrize(
    "wave",
    [[], np.zeros(0, np.int16), np.zeros((0, 2)), np.zeros(1), np.zeros((400, 2)), np.zeros(RATE // 2, np.float32)],
    ids=["list", "integers", "two channels", "one sample", "a frame", "half a second"],
)
def test_what_is_shorter_than_a_window_has_none(world, wave):
    for name in ENCODERS:
        embedding, start = load(world, name).embed(wave, RATE)
        assert embedding.shape == (0, 4) and start.shape == (0,) and embedding.dtype == np.float32
    assert load(world, "classification").probabilities(wave, RATE)[0].shape == (0, len(CLASSES))
    tracks = load(world, "mixit").separate(wave, 16000)
    assert tracks.shape == (2, len(wave)) and np.isfinite(tracks).all()


def test_silence_and_long_waveforms_are_embedded(world):
    model = load(world, "clustering")
    silent, start = model.embed(np.zeros(270 * 16000, np.float32), 16000)
    assert len(silent) == len(start) == 281, "more than a batch"
    assert np.abs(silent - silent[0]).max() < 1e-5 and np.isfinite(silent).all()


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ({"rate": 0}, "rate is 0; a positive number is needed"),
        ({"rate": -16000}, "rate is -16000; a positive"),
        ({"rate": float("nan")}, "rate is nan; a positive"),
        ({"rate": float("inf")}, "rate is inf; a positive"),
        ({"rate": None}, "rate is None; a positive"),
        ({"rate": "44100"}, "rate is '44100'; a positive"),
        ({"rate": True}, "rate is True; a positive"),
        ({"hop": 0}, "hop is 0; a positive"),
        ({"hop": float("nan")}, "hop is nan; a positive"),
        ({"waveform": np.zeros((2, 44100))}, "shape [2, 44100]; [samples] or [samples, channels] is needed; turn it"),
        ({"waveform": np.zeros((4, 0))}, "shape [4, 0]; [samples] or"),
        ({"waveform": np.zeros((3, 4, 5))}, "shape [3, 4, 5]; [samples] or"),
        ({"waveform": 0.5}, "shape []; [samples] or"),
        ({"waveform": [1, 2, 3]}, "holds int64; floats between -1 and 1 or integers of 8 to 32 bits"),
        ({"waveform": np.zeros(5, complex)}, "holds complex128; floats"),
        ({"waveform": np.zeros(5, bool)}, "holds bool; floats"),
        ({"waveform": ["a"]}, "; floats between -1 and 1"),
        ({"waveform": [0.0, np.nan]}, "holds samples that are not finite"),
        ({"waveform": [0.0, -np.inf]}, "holds samples that are not finite"),
        ({"waveform": [1e300]}, "holds samples that are not finite"),
        ({"layer": "logit"}, "no layer is called 'logit'; there are embedding, logits"),
        ({"layer": "logits"}, "the model has no classifier; train one with --objective classification"),
        ({"layer": "projection"}, "the model has no projection; train one with --objective contrastive"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_no_waveform_is_said_in_words(world, words, fact):
    with pytest.raises(ValueError, match=re.escape(fact)):
        load(world, "triplet").embed(**{"waveform": np.zeros(20000), "rate": 16000, **words})


def test_an_encoder_separates_nothing_and_a_separator_embeds_nothing(world):
    with pytest.raises(ValueError, match="is an encoder, not a separator; train one with --objective mixit"):
        load(world, "triplet").separate(np.zeros(5), 16000)
    with pytest.raises(ValueError, match="is a separator, not an encoder; its tracks are made with soundssl separate"):
        load(world, "mixit").embed(np.zeros(5), 16000)
    with pytest.raises(ValueError, match="segments of 16000 samples cannot overlap by 12000; 1 to 8000 can"):
        load(world, "mixit").separate(np.zeros(16000), 16000, length=1.0, overlap=0.75)


def test_what_is_no_model_is_refused(world, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"nothing")
    with pytest.raises(files.FormatError, match="is not a safetensors file; make a model with soundssl train"):
        soundssl.load_model(tmp_path / "m.safetensors")
    with pytest.raises(files.Missing, match="does not exist"):
        soundssl.load_model(tmp_path / "n.safetensors")
    with pytest.raises(ValueError, match="no device is called 'tpu'; choose auto, cpu, cuda"):
        soundssl.load_model(world / "triplet.safetensors", device="tpu")
    with pytest.raises(ValueError, match="no precision is called 'half'"):
        soundssl.load_model(world / "triplet.safetensors", precision="half")


def test_loading_a_model_leaves_the_threads_of_the_program(world):
    before = torch.get_num_threads()
    model = soundssl.load_model(world / "triplet.safetensors")
    assert torch.get_num_threads() == before and "plain of" in repr(model) and "because" in repr(model)


# ---------------------------------------------------------------- the public face


def test_importing_loads_neither_torch_nor_h5py():
    code = (
        "import sys, soundssl\n"
        "assert set(dir(soundssl)) >= set(soundssl.__all__) > {'load_model', 'Features', 'log_mel'}\n"
        "assert soundssl.__version__ and soundssl.SoundsslError\n"
        "loaded = {'torch', 'h5py', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "from soundssl import Features, Embeddings, Clusters, Labels\n"
        "assert 'h5py' in sys.modules and 'torch' not in sys.modules\n"
        "soundssl.load_model\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_face_has_the_readers_and_the_front_end(world):
    assert soundssl.Features is files.Features and soundssl.Labels is files.Labels
    assert soundssl.Embeddings is files.Embeddings and soundssl.Clusters is files.Clusters
    assert soundssl.log_mel(np.zeros(16000)).shape == (98, 64)
    assert len(soundssl.Features(world / "f.h5").clips) == 1
    with pytest.raises(AttributeError, match="module 'soundssl' has no attribute 'features'"):
        soundssl.features  # noqa: B018 (the look-up is what is tested)
