"""Videos as they come: turned, mirrored, odd in size, of ten bits, of any rate, with pictures that end early, or none.

Every one is a picture of four grey quarters, or as bright as its time; what is stored stands upright, at its time.
"""

from fractions import Fraction

import av
import numpy as np
import pytest
from cluster_world import run
from media_world import clicks, encoded

from soundssl import files
from soundssl.media import read_images

RATE, IMAGES, SIDE = 16000, 3, 32  # Hz, pictures a second, pixels
QUARTERS = (200, 40, 100, 150)  # grey of the picture: above left, above right, below left, below right
UPRIGHT = np.repeat(np.repeat(np.reshape(QUARTERS, (2, 2)), 24, 0), 32, 1)[..., None].repeat(3, 2).astype(np.uint8)
# How a display matrix (a, b, c, d) takes x to a x + c y and y to b x + d y; what is stored is the other way round.
MATRICES = {
    "as it is": ((1, 0, 0, 1), lambda picture: picture),
    "a quarter clockwise": ((0, 1, -1, 0), lambda picture: np.rot90(picture, 1)),
    "a quarter counterclockwise": ((0, -1, 1, 0), lambda picture: np.rot90(picture, -1)),
    "upside down": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
}


def quarters(image) -> list[float]:
    """Return the mean of each quarter, without what lies at its edges."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return [float(image[y + 2 : y + height - 2, x + 2 : x + width - 2].mean()) for y in (0, height) for x in (0, width)]


def write(path, pictures, times=None, *, seconds=2.0, codec="libx264", pixels="yuv420p", matrix=None):
    """Write pictures (at `times` in seconds, else ten a second), and `seconds` of sound; none of what is None."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=RATE, layout="mono") if seconds else None
        if pictures is not None:
            video = container.add_stream(codec, rate=10)
            video.height, video.width, video.pix_fmt = *pictures[0].shape[:2], pixels
            video.codec_context.time_base = Fraction(1, 1000)
            if matrix is not None:
                a, b, c, d = (each << 16 for each in matrix)
                video.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
            container.start_encoding()
            times = [i / 10 for i in range(len(pictures))] if times is None else times
            for picture, time, after in zip(pictures, times, [*times[1:], times[-1] + 0.1], strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.time_base = Fraction(1, 1000)
                frame.pts, frame.duration = round(1000 * time), round(1000 * (after - time))
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio:
            for packet in encoded(audio, clicks(seconds, RATE)[None], RATE, "mono"):
                container.mux(packet)
    return path


@pytest.mark.parametrize("way", MATRICES)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_turned_or_mirrored_picture_stands_upright(tmp_path, way, ending):
    matrix, stored = MATRICES[way]
    path = write(tmp_path / f"a.{ending}", [stored(UPRIGHT)] * 4, seconds=None, matrix=matrix)
    for size in ((32, 32), (24, 40)):
        images = list(read_images(path, 10.0, size))
        assert [image.shape for image in images] == [(*size, 3)] * 4
        for image in images:
            assert quarters(image) == pytest.approx(QUARTERS, abs=5)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Featurize a folder of odd videos once, three pictures a second; the features."""
    folder = tmp_path_factory.mktemp("odd")
    media = folder / "media"
    media.mkdir()
    twenty = [UPRIGHT] * 20
    write(media / "turned.mp4", [np.rot90(UPRIGHT)] * 20, matrix=(0, 1, -1, 0))
    write(media / "odd.mp4", [UPRIGHT[:47, :63]] * 20, codec="mpeg4")
    write(media / "odd.mkv", [UPRIGHT[:47, :63]] * 20, codec="libvpx-vp9")
    write(media / "ten-bits.mp4", twenty, pixels="yuv420p10le")
    write(media / "ten-bits-422.mov", twenty, codec="prores_ks", pixels="yuv422p10le")
    write(media / "short.mp4", twenty[:8])
    write(media / "one.mp4", twenty[:1])
    write(media / "sound.mp4", None)
    # As bright as the time at which it begins: a burst, a long pause, a steady end.
    times = [*np.arange(0, 0.5, 0.02), 1.4, *np.arange(1.5, 2.0, 0.1)]
    levels = [np.full((48, 64, 3), 20 + 100 * time, np.uint8) for time in times]
    write(media / "variable.mp4", levels, times)
    write(media / "variable.mkv", levels, times, codec="mpeg4")
    done = run("featurize", media, "--image-rate", IMAGES, "--image-size", SIDE, "-j", 1, "-o", folder / "f.h5")
    assert done.status == 0 and "0 inputs skipped" in done.err, done.err
    return files.Features(folder / "f.h5"), times


def pictures_of(source, name):
    return source.images_of(list(source.clips.key).index(name))


@pytest.mark.parametrize("name", ["turned.mp4", "odd.mp4", "odd.mkv", "ten-bits.mp4", "ten-bits-422.mov"])
def test_pictures_of_two_seconds_are_six_that_stand_upright(odd, name):
    images = pictures_of(odd[0], name)
    assert images.shape == (2 * IMAGES, SIDE, SIDE, 3) and images.dtype == np.uint8
    for image in images:
        assert quarters(image) == pytest.approx(QUARTERS, abs=5)


@pytest.mark.parametrize("name", ["variable.mp4", "variable.mkv"])
def test_of_a_variable_rate_the_picture_is_the_one_shown_at_its_time(odd, name):
    source, times = odd
    shown = [max(time for time in times if time <= k / IMAGES + 1e-6) for k in range(2 * IMAGES)]
    assert shown == pytest.approx([0, 0.32, 0.48, 0.48, 0.48, 1.6], abs=1e-6), "the pause shows what was before it"
    found = [float(image.mean()) for image in pictures_of(source, name)]
    assert found == pytest.approx([20 + 100 * time for time in shown], abs=4)


def test_pictures_that_end_before_the_sound_go_as_far_as_they_go_and_the_last_is_seen_from_there(odd):
    source = odd[0]
    for name, count in (("short.mp4", 3), ("one.mp4", 1)):
        clip = list(source.clips.key).index(name)
        seconds = np.diff(source.offset)[clip] / 100
        assert seconds == pytest.approx(2.0, abs=0.15) and len(source.images_of(clip)) == count
        assert quarters(source.images_from(clip, 1.5, 1)[0]) == pytest.approx(QUARTERS, abs=5)


def test_sound_without_pictures_is_a_clip_without_images(odd):
    source = odd[0]
    clip = list(source.clips.key).index("sound.mp4")
    assert len(source.images_of(clip)) == 0 and np.diff(source.offset)[clip] > 150
    with pytest.raises(ValueError, match=r"sound\.mp4 has no images"):
        source.images_from(clip, 0.0, 1)


@pytest.mark.parametrize("seconds", [None, 2.0])
@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("mp4", "mpeg4")])
def test_no_picture_is_lost_at_the_end_whatever_the_order_in_which_they_are_coded(tmp_path, ending, codec, seconds):
    """A decoder of pictures that wait for others gives the last ones when it is told that no more will come."""
    for count in (1, 2, 8):
        stored = [np.full((48, 64, 3), 20 + 25 * i, np.uint8) for i in range(count)]
        path = write(tmp_path / f"{count}.{ending}", stored, codec=codec, seconds=seconds)
        found = [float(image.mean()) for image in read_images(path, 10.0, (32, 32))]
        assert found == pytest.approx([20 + 25 * i for i in range(count)], abs=5)
