"""Dependencies: one that is missing or does not load costs one line, and only what is built on it."""

import subprocess
import sys

import conftest
import pytest
import torch

from soundssl import SoundsslError, models
from soundssl.dependencies import DependencyError, needed
from soundssl.ops import kmeans, neighbors
from soundssl.reports import pictures

# What importing a package may end in: how it is said, and what of it is told.
FAULTS = {
    "missing": (ModuleNotFoundError, "which is not installed"),
    "symbol": (OSError("lib.so: undefined symbol: what"), r"which does not load.* \(lib\.so: undefined symbol: what\)"),
    "operator": (RuntimeError("operator torchvision::nms does not exist"), r"does not load.* \(operator torchvision"),
    "half made": (AttributeError("partially initialized module"), r"does not load.* \(partially initialized module\)"),
    "relative": (ImportError("cannot import name"), r"does not load.* \(cannot import name\)"),
}
# Whose import fails, what is asked for, and what the line says.
USES = {
    "encoder": ("timm", lambda folder: models.build("resnet50", 4), "resnet50 needs timm.*or choose --encoder plain"),
    "half": ("timm", lambda folder: models.build("resnet18-half", 4), "resnet18-half needs timm.*--encoder plain"),
    "tower": ("timm", lambda folder: models.build_image("resnet50", 4), "tower resnet50 needs timm.*--set tower="),
    "separator": ("torchaudio", lambda folder: models.build_separator("conv-tasnet-small"), "torchaudio.*tdcn"),
    "centres": ("faiss", lambda folder: kmeans.fit(ROWS, 2, 0), r"needs faiss.*pip install 'soundssl\[faiss\]'"),
    "search": ("faiss", lambda folder: neighbors.nearest_by_faiss(ROWS, ROWS, 1), "needs faiss.*uninstall it"),
    "picture": ("matplotlib", lambda folder: pictures.bars(folder / "b.png", [("a", 0.5)]), r"needs.*soundssl\[plot\]"),
}
ROWS = [[0.0, 1.0]]


class Failing:
    """Find a package and all below it only to fail."""

    def __init__(self, package: str, error) -> None:
        self.package, self.error = package, error

    def find_spec(self, name, path=None, target=None):
        """Raise where a module of the package is asked for."""
        if name.partition(".")[0] == self.package:
            raise self.error if isinstance(self.error, Exception) else self.error(f"no {name}", name=name)


@pytest.fixture
def fail(monkeypatch):
    """Return a function that makes a package fail to import, as if it had never been imported."""

    def use(package: str, error) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Failing(package, error), *sys.meta_path])

    return use


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("use", USES)
def test_a_package_that_fails_costs_one_line_with_its_remedy(use, fault, fail, tmp_path):
    package, ask, line = USES[use]
    error, fact = FAULTS[fault]
    fail(package, error)
    for _ in range(2):  # and the same line when it is asked for again
        with pytest.raises(SoundsslError, match=f"(?s)^(?=.*{fact}).*{line}") as raised:
            ask(tmp_path)
        assert "\n" not in str(raised.value) and raised.value.status == 1
    assert not list(tmp_path.iterdir())


def test_the_nets_of_torch_alone_need_no_other_package(fail):
    for package in ("timm", "torchvision", "torchaudio"):
        fail(package, OSError("lib.so: undefined symbol"))
    assert {models.build(name, 4).size for name in ("plain", "vggish")} == {4}
    assert {models.build_image(name, 4).size for name in ("folded", "vgg", "vgg-small")} == {4}
    tdcn = [name for name in models.SEPARATORS if name.startswith("tdcn")]
    assert [models.build_separator(name, 2).tracks for name in tdcn] == [2] * len(tdcn) != []


def test_tests_are_skipped_only_where_a_package_does_not_load():
    assert conftest.loads("numpy") and not conftest.loads("no_such_package")
    with pytest.raises(DependencyError) as told, needed("this test", "no_such_package", "none"):
        import no_such_package  # noqa: F401
    assert told.value.package == "no_such_package"


def test_beside_a_torch_with_cuda_every_net_is_built():
    if torch.version.cuda is None:
        pytest.skip("torch's CPU build: its companions may be of another one")
    try:
        with torch.device("meta"):
            assert all(models.build(name, 4).size == 4 for name in models.ENCODERS)
        assert all(models.build_image(name, 4).size == 4 for name in models.IMAGE_TOWERS)
        assert all(models.build_separator(name, 2).tracks == 2 for name in models.SEPARATORS)
    except SoundsslError as error:  # no skip
        pytest.fail(str(error))


def test_what_is_built_on_torch_is_told_with_its_versions_and_the_bottom_of_the_fault():
    def outer():
        try:
            raise OSError("libcudart.so: cannot open\nand more")
        except OSError as error:
            raise ImportError("could not load the extension") from error

    with pytest.raises(SoundsslError) as raised, needed("a net", "h5py", "do this", ("torch", "no-such-package")):
        outer()
    words = str(raised.value).split(", which does not load beside torch ")
    assert words[0].startswith("a net needs h5py ") and words[1].endswith("(libcudart.so: cannot open); do this")
    assert "no-such-package" not in str(raised.value)


def test_a_failure_of_another_kind_is_not_taken_for_the_package():
    with pytest.raises(ZeroDivisionError), needed("a net", "timm", "do this"):
        raise ZeroDivisionError


def test_a_failing_import_never_escapes_as_a_traceback(tmp_path):
    words = "import sys; sys.modules['h5py'] = None; from soundssl.commands import main; main(sys.argv[1:])"
    run = subprocess.run([sys.executable, "-c", words, "info", tmp_path], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("soundssl info: ") and "h5py" in run.stderr and len(run.stderr.splitlines()) == 1


def test_importing_and_building_a_small_net_loads_no_package_of_others():
    words = """
import sys
import soundssl.commands
from soundssl import files, media, models, training
from soundssl.reports import pictures
from soundssl.ops import kmeans, neighbors
models.build("plain", 4), models.build_separator("tdcn-stft-small")
print(*{name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:]))
"""
    packages = ["timm", "torchvision", "torchaudio", "sklearn", "faiss", "matplotlib"]
    run = subprocess.run([sys.executable, "-c", words, *packages], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_learning_loads_no_codecs_and_no_evaluation():
    words = """
import sys
from soundssl import clustering, objectives, training
for name in ("triplet", "contrastive", "coincidence", "clustering", "classification"):
    objectives.load(name)
print(*{name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:]))
"""
    packages = ["av", "soundfile", "soxr", "scipy", "matplotlib"]
    run = subprocess.run([sys.executable, "-c", words, *packages], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
