"""``predict`` on videos and cameras: each frame once, in time, in memory that does not grow."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet_ext.cli import main
from retinanet_ext.inference.outputs import Clip
from tests.helpers.predicting import predict, without_times
from tests.inference.test_video import NTSC, FastCamera

cv2 = pytest.importorskip("cv2")
pytestmark = pytest.mark.usefixtures("clean_catalogs")


def write_video(picture: Path, frames: int, size: tuple[int, int] = (96, 64)) -> None:
    """``clip.webm``: the picture, moved a little from frame to frame."""
    pixels = np.asarray(Image.open(picture).convert("RGB").resize(size))
    clip = Clip("clip.webm", NTSC)
    for i in range(frames):
        clip.add(Image.fromarray(np.roll(pixels, i, axis=1)))
    clip.close()


def frames_of(path: str) -> tuple[int, float]:
    capture = cv2.VideoCapture(path)
    number = 0
    while capture.grab():
        number += 1
    return number, capture.get(cv2.CAP_PROP_FPS)


def test_each_frame_has_a_line_with_its_time_and_a_drawn_frame(run, photos):
    write_video(photos / "0.png", 12)
    records = predict(run, "clip.webm", "--video-out", "drawn.webm", "--draw", "--format", "yolo")
    assert [x["frame"] for x in records] == list(range(12))
    times = [x["time_s"] for x in records]
    np.testing.assert_allclose(times, np.arange(12) / NTSC, atol=2e-3)
    assert {x["file"] for x in records} == {"clip.webm"} and records[0]["detections"]
    number, fps = frames_of("drawn.webm")
    assert number == 12 and fps == pytest.approx(NTSC, abs=1e-3)
    assert Path("out/labels/clip_frame_000011.txt").is_file()
    assert Path("out/drawn/clip_frame_000011.jpg").is_file()


def test_a_part_of_a_video_lasts_as_long(run, photos):
    write_video(photos / "0.png", 12)
    words = ["--every", "3", "--start", "0.1", "--end", "0:00.35", "--video-out", "drawn.webm"]
    assert [x["frame"] for x in predict(run, "clip.webm", *words)] == [3, 6, 9]
    assert frames_of("drawn.webm")[0] == 3
    assert frames_of("drawn.webm")[1] == pytest.approx(NTSC / 3, abs=1e-2)


def test_a_video_can_be_continued_and_stand_among_pictures(run, photos):
    write_video(photos / "0.png", 5)
    words = [run, "photos", "clip.webm", "--batch-size", "1"]
    expected = without_times(predict(*words))
    assert [x["index"] for x in expected] == list(range(9))
    path = Path("out/predictions.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    assert without_times(predict(*words, "--resume")) == expected


def test_videos_that_cannot_be_read_are_failures(run, photos):
    Path("broken.mp4").write_bytes(b"no video")
    records = predict(run, "broken.mp4", "photos", expected=1)
    assert len(records) == 4
    assert "cannot be opened as a video" in Path("out/failed.txt").read_text()
    assert predict(run, "broken.mp4", "--overwrite", expected=1) == []


def test_the_video_that_is_read_is_never_written(run, photos, capsys):
    write_video(photos / "0.png", 3)
    before = Path("clip.webm").read_bytes()
    Path("link.webm").symlink_to("clip.webm")
    for name in ("clip.webm", "./clip.webm", "link.webm"):
        predict(run, "clip.webm", "--video-out", name, "--overwrite", expected=2)
        assert "the video that is read; name another file" in capsys.readouterr().err
    Path("other.webm").touch()
    predict(run, "clip.webm", "--video-out", "other.webm", expected=2)
    assert "there already" in capsys.readouterr().err
    assert Path("clip.webm").read_bytes() == before and not Path("out").exists()
    predict(run, "clip.webm", "--video-out", "other.webm", "--overwrite")
    assert frames_of("other.webm")[0] == 3


def test_a_video_that_breaks_off_is_said_to(run, photos, capsys):
    write_video(photos / "0.png", 12)
    whole = Path("clip.webm").read_bytes()
    predict(run, "clip.webm")
    assert "ends after" not in capsys.readouterr().err
    Path("clip.webm").write_bytes(whole[: len(whole) // 2])
    number = len(predict(run, "clip.webm", "--overwrite"))
    assert 0 < number < 9
    said = f"'clip.webm' ends after {number} of the 12 frames that it announces; it may have been"
    assert said in capsys.readouterr().err
    Path("clip.webm").write_bytes(whole)
    predict(run, "clip.webm", "--overwrite", "--end", "0.05")  # no more was asked for
    assert "ends after" not in capsys.readouterr().err


def test_a_camera_is_read_until_it_ends(run, photos, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FastCamera)
    records = predict(run, "webcam", "--end", "0.25", "--batch-size", "8")
    numbers = [x["frame"] for x in records]
    assert numbers == sorted(set(numbers)) and max(x["time_s"] for x in records) < 0.25
    assert records[0]["file"] == "webcam"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["webcam:97"], "'webcam:97', but that camera cannot be opened"),
        (["webcam", "--resume"], "a camera cannot be continued"),
        (["clip.webm", "--video-out", "a.webm", "--resume"], "--video-out cannot be continued"),
        (["webcam", "photos"], "a camera cannot be among other sources"),
    ],
)
def test_a_mistake_is_one_sentence(words, says, run, photos, capsys):
    write_video(photos / "0.png", 2)
    assert main(["predict", str(run), *words, "--output", "out"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss has another unit")
def test_memory_does_not_grow_with_the_video(run, photos):
    write_video(photos / "0.png", 300, (320, 240))
    predict(run, "clip.webm", "--end", "1.7", "--video-out", "drawn.webm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    records = predict(run, "clip.webm", "--video-out", "drawn.webm", "--overwrite")
    assert len(records) == 300 == frames_of("drawn.webm")[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
