"""The labelling page in a real browser: keys alone, nothing lost, nothing asked of the network, names as text."""

import json
import os
import shutil
import tempfile
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from soundssl import SoundsslError
from soundssl.commands.reviewing import write_page
from soundssl.detection.events import Event
from soundssl.labelling import review, sheets
from soundssl.labelling.page import Group, build, spectrogram
from soundssl.labelling.sheets import Question
from soundssl.progress import SILENT

HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"
NAME = "a \"quoted\" <b>مرحبا<b> 🐦 'name'.wav"
COUNT = 40


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Write recordings of three seconds: a tone that is as high as its number says."""
    folder = tmp_path_factory.mktemp("recordings")
    time_ = np.arange(3 * 22050) / 22050
    names = [NAME, *(f"{number}.wav" for number in range(1, 5))]
    for number, name in enumerate(names):
        soundfile.write(folder / name, 0.01 * np.sin(2 * np.pi * 1000 * (number + 1) * time_), 22050)
    return [str(folder / name) for name in names]


def questions(recordings, count: int) -> list[Group]:
    asked = []
    for number in range(count):
        files = [recordings[(number + step) % len(recordings)] for step in range(3)]
        own, *others = (Question(number, file, os.path.basename(file), 1.0, 1.96) for file in files)
        asked.append(Group(own, others, f"cluster {number}, <i>{number + 2}</i> windows"))
    return asked


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium with its driver is installed")
    options, folder = webdriver.ChromeOptions(), tmp_path_factory.mktemp("downloads")
    options.binary_location = program
    for word in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "mute-audio", "autoplay-policy=no-user-gesture-required"),
        *("window-size=1280,950", f"user-data-dir={tempfile.mkdtemp(dir=folder)}"),
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    service = webdriver.ChromeService(executable_path=driver)
    session = webdriver.Chrome(options=options, service=service)
    session.downloads = folder
    yield session
    session.quit()


def opened(browser, path, html: str):
    path.write_text(html, "utf-8")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    return browser


def press(browser, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def wait_for(condition, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return found


def saved(browser) -> list[sheets.Line]:
    for path in browser.downloads.glob("*.csv"):
        path.unlink()
    browser.find_element("id", "save").click()
    path = wait_for(lambda: next(iter(browser.downloads.glob("*.csv")), None))
    return sheets.read(path.read_bytes(), path.name)


def quiet(browser) -> None:
    """Assert that nothing was complained of and nothing was asked of the network."""
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.split(":")[0] not in ("file", "data", "blob")] == []


def test_forty_questions_by_keyboard_reloaded_in_the_middle(browser, recordings, tmp_path):
    from selenium.webdriver.common.keys import Keys

    page = opened(browser, tmp_path / "q.html", build(questions(recordings, COUNT), ["dog", HOSTILE], "q").html)
    expected = []
    for number in range(COUNT):
        if number == COUNT // 2:
            browser.refresh()
        if number == 0:
            press(page, *"rain on leaves", Keys.ENTER, Keys.ENTER)
            expected.append("rain on leaves")
        elif number == 1:
            press(page, "1", "2", Keys.ENTER)
            expected.append(f"dog; {HOSTILE}")
        elif number == 2:
            press(page, Keys.ARROW_RIGHT)  # left open
            expected.append("")
        elif number == 3:
            press(page, "0", Keys.ENTER)
            expected.append("none")
        elif number == 4:
            press(page, "-", Keys.ENTER)
            expected.append("?")
        elif number == 5:
            press(page, *"RAIN", Keys.TAB, Keys.ENTER, Keys.ENTER)  # completed, whatever its capitals
            expected.append("rain on leaves")
        elif number == 6:
            press(page, "1", Keys.ENTER, Keys.ARROW_LEFT, "1", "3", Keys.ENTER)  # back, and another answer
            expected.append("rain on leaves")
        else:
            press(page, str(1 + number % 3), Keys.ENTER)
            expected.append(["dog", HOSTILE, "rain on leaves"][number % 3])
    assert page.find_element("id", "count").text == f"{COUNT - 1} of {COUNT} answered"
    lines = saved(page)
    assert [line.answer for line in lines] == expected
    asked = [group.question for group in questions(recordings, COUNT)]
    assert [(line.cluster, line.clip, line.start) for line in lines] == [(q.cluster, q.clip, q.start) for q in asked]
    quiet(page)


def test_a_page_without_any_sound_is_refused_and_missing_recordings_are_counted(recordings, tmp_path):
    class Told:
        path, lines = tmp_path / "q.html", []
        terminal = SimpleNamespace(warn=lines.append, say=lines.append, track=SILENT.track)

    gone = [f"{folder}/gone.wav" for folder in "abcde"]
    with pytest.raises(SoundsslError, match=r"no question was found \(a/gone.wav: .*; run where the recordings of"):
        write_page(Told, questions(gone, 2))  # the others of a cluster lie in further recordings
    assert not Told.path.exists()
    write_page(Told, questions([*recordings[:2], *gone], 5))
    assert Told.path.exists() and [line for line in Told.lines if "2 more recordings were not found" in line]


def test_undo_takes_back_one_answer_after_the_other(browser, recordings, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = opened(browser, tmp_path / "u.html", build(questions(recordings, 3), ["dog", "cat"], "u").html)
    press(page, "1", Keys.ENTER, "2", Keys.ENTER)
    for left in (["dog", "", ""], ["", "", ""]):
        ActionChains(page).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
        assert [line.answer for line in saved(page)] == left
    press(page, "?")
    assert page.find_element("id", "keys").is_displayed()
    press(page, Keys.ESCAPE)
    assert not page.find_element("id", "keys").is_displayed()


def test_names_are_text_and_never_markup(browser, recordings, tmp_path):
    page = opened(browser, tmp_path / "n.html", build(questions(recordings, 2), [HOSTILE, "كلب 🐕"], HOSTILE).html)
    assert page.find_element("id", "title").text == HOSTILE and page.title == HOSTILE
    chips = [chip.text.lstrip("123456789\n") for chip in page.find_elements("css selector", "#chips button")]
    assert chips == [HOSTILE, "كلب 🐕"]
    assert (
        NAME in page.find_element("id", "place").text and "<i>2</i> windows" in page.find_element("id", "heading").text
    )
    assert page.find_elements("css selector", "main b, main i, #chips img") == []
    quiet(page)


def test_sound_plays_and_the_window_is_seen_in_its_context(browser, recordings, tmp_path):
    page = opened(browser, tmp_path / "s.html", build(questions(recordings, 2), ["dog"], "s").html)
    press(page, " ")
    wait_for(lambda: page.execute_script("return audio.currentTime > 0.2 && !audio.paused"))
    assert abs(page.execute_script("return audio.duration") - 3.0) < 0.1
    press(page, " ")
    assert page.execute_script("return audio.paused")
    press(page, ",")
    wait_for(lambda: page.execute_script("return playing === shown[1] && audio.currentTime > 0.1"))
    assert page.execute_script("return shown[0].grey.length > 1000 && shown[0].data.begin === 0")
    page.execute_script("document.getElementById('speed').value = -1; setSpeed()")
    assert page.execute_script("return [audio.playbackRate, audio.preservesPitch]") == [0.1, False]
    quiet(page)


def test_a_question_without_sound_is_still_asked(browser, tmp_path):
    made = build([Group(Question(None, str(tmp_path / "gone.wav"), "gone.wav", 0, 1))], ["dog"])
    assert list(made.missing) == [str(tmp_path / "gone.wav")]
    page = opened(browser, tmp_path / "m.html", made.html)
    press(page, "1")
    assert [line.answer for line in saved(page)] == ["dog"]
    quiet(page)


def test_data_cannot_leave_its_script(tmp_path):
    made = build([Group(Question(1, "</script><script>alert(1)</script>", "<!--", 0, 1))], ["</script>"])
    assert "<script>alert" not in made.html and made.html.count("<!--") == 0


def test_the_spectrogram_shows_a_tone_at_its_height():
    time_ = np.arange(2 * 16000) / 16000
    grey = spectrogram(np.sin(2 * np.pi * 2000 * time_).astype(np.float32), 16000)
    assert grey.dtype == np.uint8 and grey.max() == 255
    row = np.bincount(grey[:, 10:-10].argmax(0)).argmax()
    assert abs((1 - (row + 0.5) / len(grey)) * 8000 - 2000) < 60


def test_silence_and_a_single_sample_have_a_spectrogram():
    for samples in (np.zeros(16000, np.float32), np.ones(1, np.float32)):
        assert np.isfinite(spectrogram(samples, 16000)).all()


def test_events_are_reviewed_yes_or_no(browser, recordings, tmp_path):
    from selenium.webdriver.common.keys import Keys

    names = [HOSTILE, "cat", HOSTILE, "cat", "dog"]
    events = [Event(path, 1.0, 1.96, name, 0.5) for path, name in zip(recordings, names, strict=True)]
    page = opened(browser, tmp_path / "r.html", build(review.groups(events), ["cat", "dog", HOSTILE], "r").html)
    assert (
        HOSTILE in page.find_element("id", "heading").text and "score 0.500" in page.find_element("id", "heading").text
    )
    assert page.find_element("css selector", "#chips button").text.endswith(f"Yes: \u2068{HOSTILE}\u2069")
    press(page, "1", Keys.ENTER, "0", Keys.ENTER, "-", Keys.ENTER, "1", "2", Keys.ENTER, *"owl", Keys.ENTER)
    for path in page.downloads.glob("*.csv"):
        path.unlink()
    page.find_element("id", "save").click()
    path = wait_for(lambda: next(iter(page.downloads.glob("*.csv")), None))
    assert review.read_answers(path, events) == {0: (HOSTILE,), 1: (), 2: None, 3: ("cat", "dog"), 4: ("owl",)}
    quiet(page)


def test_four_hundred_questions_fit_in_sixty_megabytes(tmp_path):
    """Noise at 44.1 kHz packs worst."""
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 10 * 44100), 44100)
    asked = [Question(1, str(tmp_path / "noise.wav"), "noise.wav", start, start + 0.96) for start in (4.0, 2.0, 7.0)]
    one, empty = (len(build([group], ["dog"]).html) for group in (Group(asked[0], asked[1:]), Group(asked[0])))
    assert 400 * one < 60e6 + 400 * len(build([], ["dog"]).html)
    assert one - empty < empty  # those beside it cost less than the question itself
