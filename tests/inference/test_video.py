"""Videos are read in the time of their file, and written so that browsers play them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet_ext import UserError
from retinanet_ext.inference.outputs import Clip, check_clip
from retinanet_ext.inference.sources import Items, VideoOptions, list_sources, seconds_of
from retinanet_ext.inference.sources import camera as camera_module
from retinanet_ext.inference.sources.video import Video

cv2 = pytest.importorskip("cv2")

NTSC = 30000 / 1001


def write_clip(path: Path, frames: int = 30, size: tuple[int, int] = (64, 48)) -> Path:
    """A webm whose frames become brighter."""
    clip = Clip(str(path), NTSC)
    for i in range(frames):
        clip.add(Image.new("RGB", size, (8 * i % 256, 0, 0)))
    clip.close()
    return path


def items(path: Path, **options) -> list:
    return [x.extra for x in Items(list_sources([str(path)]), VideoOptions(**options))]


def test_a_written_clip_has_its_frames_rate_and_size(tmp_path):
    with Video(str(write_clip(tmp_path / "clip.webm", size=(65, 47)))) as video:
        frames = [pixels() for _, _, pixels in video.frames()]
        assert len(frames) == 30
        assert {x.shape for x in frames} == {(48, 66, 3)}  # VP8 has even sides
        assert video.fps == pytest.approx(NTSC, abs=1e-3)


def test_frames_have_numbers_and_the_times_of_the_file(tmp_path):
    found = items(write_clip(tmp_path / "clip.webm"))
    assert [x.frame for x in found] == list(range(30))
    np.testing.assert_allclose([x.seconds for x in found], np.arange(30) / NTSC, atol=2e-3)
    assert found[3].stem == "clip_frame_000003" and found[3].key == (
        str(tmp_path / "clip.webm"),
        3,
    )


def test_unequal_distances_keep_their_times(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.webm", frames=4)
    times = iter([0.0, 40.0, 200.0, 210.0])

    class Uneven:
        def __init__(self, path):
            self.inner = cv2.VideoCapture(path)

        def get(self, what):
            return next(times) if what == cv2.CAP_PROP_POS_MSEC else self.inner.get(what)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    video = Video(str(path))
    monkeypatch.setattr(video, "_capture", Uneven(str(path)))
    assert [seconds for _, seconds, _ in video.frames()] == [0.0, 0.04, 0.2, 0.21]


def test_a_part_of_the_frames_can_be_taken(tmp_path):
    path = write_clip(tmp_path / "clip.webm")
    assert [x.frame for x in items(path, every=10)] == [0, 10, 20]
    assert [x.frame for x in items(path, start=0.5, end=0.6)] == [15, 16, 17]
    assert [x.frame for x in items(path, start=0.5, every=8)] == [15, 23]
    with pytest.raises(UserError, match="no frame from --start to --end; it has 30 frames"):
        items(path, start=10.0)


def test_times_are_read_as_people_write_them():
    assert [seconds_of(x) for x in ("90", "1:30", "0:01:30.5")] == [90, 90, 90.5]
    for text in ("a", "-1", "1:2:3:4", ""):
        with pytest.raises(UserError, match="is no time"):
            seconds_of(text)


def test_a_file_that_is_no_video_fails_and_the_rest_is_read(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    path = write_clip(tmp_path / "b.webm", frames=2)
    failed = []
    listing = list_sources([str(tmp_path / "a.mp4"), str(path)])
    found = list(Items(listing, failed=lambda *words: failed.append(words)))
    assert [x.extra.frame for x in found] == [0, 1]
    assert [name for name, _ in failed] == [str(tmp_path / "a.mp4")]
    with pytest.raises(UserError, match="cannot be opened as a video"):
        list(Items(listing))


def test_a_clip_that_browsers_do_not_play_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"end it in \.webm"):
        check_clip("clip.mp4")


def test_a_missing_opencv_is_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UserError, match="needs OpenCV: pip install"):
        Video("clip.mp4")


class FastCamera:
    """A frame each 5 ms, which holds its number."""

    def __init__(self, number):
        self.count = 0

    def isOpened(self):
        return True

    def read(self):
        time.sleep(0.005)
        self.count += 1
        ended = self.count > 60
        return not ended, np.full((4, 4, 3), self.count, np.uint8)

    def release(self):
        self.count = -1


def test_a_camera_shows_the_present_and_never_a_frame_twice(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FastCamera)
    with camera_module.Camera("webcam:1") as opened:
        numbers = []
        for number, _, pixels in opened.frames():
            time.sleep(0.05)  # a slow model
            assert pixels()[0, 0, 0] == number + 1
            numbers.append(number)
    steps = np.diff(numbers)
    assert len(numbers) > 1 and (steps > 0).all() and steps.max() > 3


def test_a_camera_that_is_not_there_is_said(monkeypatch):
    class Closed(FastCamera):
        def isOpened(self):
            return False

    monkeypatch.setattr(cv2, "VideoCapture", Closed)
    with pytest.raises(UserError, match="'webcam:7', but that camera cannot be opened; there "):
        camera_module.Camera("webcam:7")
    with pytest.raises(UserError, match="a camera is webcam or webcam:1"):
        camera_module.Camera("webcam:front")
