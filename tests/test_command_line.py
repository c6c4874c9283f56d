"""The command line as a whole: help that costs nothing, exit statuses, and errors of one line."""

import json
import os
import re
import subprocess
import sys

import pytest

from soundssl import __version__
from soundssl.commands import COMMANDS, terminal

HEAVY = ("torch", "h5py", "scipy", "sklearn", "numpy", "av", "soundfile", "matplotlib")
SHELLS = ("bash", "zsh", "fish", "powershell")

# Many command lines in one process: each is answered with its status, its output, and the heavy modules it loaded.
DRIVER = """
import contextlib, io, json, signal, sys
from soundssl.commands import main
class Interrupted:
    buffer = property(lambda self: self)
    def read(self):
        signal.raise_signal(number)
answers = []
for line in json.loads(sys.argv[1]):
    number = getattr(signal, line[0], None)
    if number:
        sys.stdin, line = Interrupted(), line[1:]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(line)
            status = 0
        except SystemExit as end:
            status = end.code or 0
    loaded = [name for name in %r if name in sys.modules]
    answers.append([status, out.getvalue(), err.getvalue(), loaded])
json.dump(answers, sys.stdout)
"""

HELP = [["--help"], ["-h"]]
for _members in COMMANDS.values():
    for _name, _command in _members.items():
        HELP.append([_name, "--help"])
        HELP += [[_name, each.name, "--help"] for each in getattr(_command, "registered_commands", ())]
PLAIN = [["--version"], *(["--completion", shell] for shell in SHELLS)]
USAGE = {
    "unknown command": (["featurise"], "No such command 'featurise'"),
    "unknown subcommand": (["evaluate", "knm"], "No such command 'knm'"),
    "unknown option": (["embed", "--hops", "1"], "No such option: --hops"),
    "unknown shell": (["--completion", "tcsh"], "choose bash, zsh, fish or powershell"),
    "missing option": (["embed", "a.h5"], "Missing option '-m' / '--model'"),
    "missing argument": (["featurize"], "Missing argument"),
    "value of another type": (["train", "a.h5", "--steps", "many"], "'--steps'"),
    "value out of range": (["train", "a.h5", "--batch-size", "0"], "'--batch-size'"),
    "unknown sampler": (["sample-triplets", "a.h5", "--sampler", "jiont"], "choose from noise, translation"),
    "unknown list": (["train", "--list", "nets"], "choose from objectives, encoders, separators"),
    "unknown objective to describe": (["train", "--describe", "tripel"], "choose from "),
}
MISSING = {
    "featurize": ["featurize", "nowhere"],
    "sample-triplets": ["sample-triplets", "nowhere"],
    "train": ["train", "nowhere"],
    "embed": ["embed", "nowhere", "-m", "m.safetensors"],
    "label-clusters": ["label-clusters", "nowhere"],
    "evaluate": ["evaluate", "retrieval", "a.npy", "--labels", "nowhere"],
}
WRONG = {
    "label-clusters": (["label-clusters", "text.h5"], "make clusters with soundssl cluster"),
    "sample-triplets": (["sample-triplets", "text.h5"], "soundssl featurize"),
    "train": (["train", "text.h5"], "soundssl featurize"),
    "embed": (["embed", "text.h5", "-m", "m.safetensors"], "soundssl featurize"),
    "evaluate": (
        ["evaluate", "knn", "text.h5", "--labels", "text.h5"],
        "make labels with soundssl featurize --dataset",
    ),
}
SIGNALS = {"SIGINT": 130, "SIGTERM": 143}


def soundssl(words: list[str], folder, **environment: str) -> subprocess.CompletedProcess:
    """Run the program in a process of its own."""
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)


def answers(lines: list[list[str]], folder) -> dict[tuple[str, ...], tuple[int, str, str, list[str]]]:
    """Run command lines one after another in one process and return the answer to each."""
    result = soundssl(["-c", DRIVER % (HEAVY,), json.dumps(lines)], folder)
    assert result.returncode == 0, result.stderr
    return dict(zip(map(tuple, lines), map(tuple, json.loads(result.stdout)), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder with a text file that calls itself HDF5."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "text.h5").write_text("these are words\n")
    return folder


@pytest.fixture(scope="module")
def shown(folder):
    """Ask for all help, the version and the completions."""
    return answers([*HELP, *PLAIN], folder)


@pytest.fixture(scope="module")
def refused(folder):
    """Run every command line that is in error."""
    signals = [[number, "featurize", "-"] for number in SIGNALS]
    others = [line for line, _ in (*USAGE.values(), *WRONG.values())]
    return answers([*others, *MISSING.values(), *signals], folder)


@pytest.mark.parametrize("line", HELP, ids=" ".join)
def test_help_is_printed_and_loads_nothing_heavy(shown, line):
    status, out, err, loaded = shown[tuple(line)]
    assert (status, err) == (0, "")
    assert out.startswith("Usage: soundssl")
    assert loaded == [], (
        f"soundssl {' '.join(line)} imports {', '.join(loaded)}; import inside the function that needs it"
    )


def test_help_lists_every_command_under_its_heading_in_order(shown):
    out = shown[("--help",)][1]
    words = [word for heading, members in COMMANDS.items() for word in (f"{heading}:", *members)]
    places = [re.search(rf"^ *{re.escape(word)}(?= |$)", out, re.MULTILINE) for word in words]
    assert all(places)
    assert [place.start() for place in places] == sorted(place.start() for place in places)


def test_version(shown):
    assert shown[("--version",)][:3] == (0, f"soundssl {__version__}\n", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shown, shell):
    status, out, err, _ = shown[("--completion", shell)]
    assert (status, err) == (0, "")
    assert "_SOUNDSSL_COMPLETE" in out


def test_completion_scripts_differ(shown):
    assert len({shown[("--completion", shell)][1] for shell in SHELLS}) == len(SHELLS)


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors_have_status_2_and_name_the_fault_last(refused, name):
    line, fault = USAGE[name]
    status, out, err, _ = refused[tuple(line)]
    assert (status, out) == (2, "")
    assert fault in err.splitlines()[-1]


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_path_has_status_2_and_one_line(refused, name):
    status, out, err, _ = refused[tuple(MISSING[name])]
    assert (status, out) == (2, "")
    assert err == f"soundssl {name}: nowhere does not exist; check the path\n"


@pytest.mark.parametrize("name", WRONG)
def test_a_text_file_has_status_4_and_one_line_with_the_remedy(refused, name):
    line, remedy = WRONG[name]
    status, out, err, _ = refused[tuple(line)]
    assert (status, out) == (4, "")
    assert re.fullmatch(rf"soundssl {name}: text\.h5 is not an HDF5 file; .*{remedy}.*\n", err)


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_have_their_status(refused, name):
    status, out, err, _ = refused[(name, "featurize", "-")]
    assert (status, out, err) == (SIGNALS[name], "", "")


def test_the_process_ends_with_the_status_and_one_line(folder):
    result = soundssl(["-m", "soundssl", "sample-triplets", "text.h5"], folder, SOUNDSSL_DEBUG="")
    assert (result.returncode, result.stdout) == (4, "")
    assert (
        result.stderr
        == "soundssl sample-triplets: text.h5 is not an HDF5 file; make features with soundssl featurize\n"
    )


def test_debug_shows_the_traceback(folder):
    result = soundssl(["-m", "soundssl", "sample-triplets", "text.h5"], folder, SOUNDSSL_DEBUG="1")
    assert result.returncode != 0
    assert "Traceback (most recent call last)" in result.stderr
    assert "FormatError: text.h5 is not an HDF5 file" in result.stderr.splitlines()[-1]


def test_completion_completes(folder):
    asked = {"_SOUNDSSL_COMPLETE": "complete_bash", "COMP_WORDS": "soundssl e", "COMP_CWORD": "1"}
    result = soundssl(["-m", "soundssl"], folder, **asked)
    assert (result.returncode, result.stderr) == (0, "")
    assert {"embed", "evaluate"} <= set(result.stdout.split())
    assert "train" not in result.stdout.split()


def test_the_pace_is_that_of_the_last_minute_and_starts_where_a_run_goes_on():
    pace = terminal.Pace("steps")
    assert (pace.rate(), pace.left(10)) == ("- steps/s", "-:--:--")
    pace.add(1_000_000, 0.0)  # done before
    assert pace.speed() == 0
    pace.add(1, 40.0)
    assert pace.rate() == "40.0 s/step" and pace.left(1_000_091) == "1:00:00"
    for second in range(41, 141):
        pace.add(5, float(second))
    assert pace.speed() == pytest.approx(5) and pace.rate() == "5.0 steps/s"
    pace.add(1, 240.0)
    assert pace.speed() < 0.1, "a step that takes long slows the pace"


def test_a_slow_first_step_is_not_expected_again():
    pace = terminal.Pace("steps")
    pace.add(13, 0.0)  # done before
    pace.add(1, 20.0)
    assert pace.rate() == "20.0 s/step", "nothing else is known"
    pace.add(0, 20.1)  # a note
    for second in range(26, 60, 6):
        pace.add(1, float(second))
        assert pace.rate() == "6.0 s/step"


def test_advice_about_memory_goes_with_a_lack_of_memory_alone():
    from soundssl.commands import _fact
    from soundssl.files import Missing

    advice = "a smaller --batch-size takes less"
    for path in ("out of memory/f.h5", "can't allocate memory.h5"):
        assert advice not in _fact(Missing(f"{path} does not exist; check the path")), "a path may say what it likes"
    lacking = (MemoryError("8 GiB"), RuntimeError("CUDA out of memory. Tried"), RuntimeError("can't allocate memory"))
    assert all(_fact(error).endswith(advice) for error in lacking)
