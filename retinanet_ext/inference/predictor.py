"""A model to be used: pictures in, detections out, one at a time or as a stream."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances

from ..config import validate_cfg
from ..config.load import merge_opts
from ..data.loading.bad_images import BadImageError
from ..engine.setup import resolve_device
from ..errors import InputError
from ..structures import detection_node
from .build import build_detector
from .detector import Detector, Fitting
from .exported import cfg_of_export
from .exported.precision import settle_autocast
from .load_model import check_weights, load_model
from .pictures import Picture, read_pixels, to_rgb
from .prediction import FailedPicture, Prediction
from .run_folder import cfg_of_run
from .streaming.lanes import num_lanes
from .streaming.reading import ReadPicture, read_ahead
from .streaming.stream import AUTO_BATCH, WINDOW, Stream

__all__ = ["Predictor"]


class Predictor:
    """Detections of pictures with the pixels, sizes and thresholds of the model's evaluation.

    Build it once and use it from as many threads as you like; the model computes for one at a time.
    What it returns is on the CPU.

        predictor = Predictor.from_run("output/cells")
        for prediction in predictor.stream(["a.jpg", "b.jpg"], batch_size=8):
            print(prediction.names, prediction.boxes)

    Attributes:
        cfg: the config, frozen.
        model: in evaluation mode.
        class_names: (K,).
        detector: what turns pixels into detections.
    """

    def __init__(self, cfg: CfgNode, *, class_names: Sequence[str] | None = None):
        """
        Args:
            cfg: of the model, with its ``MODEL.WEIGHTS``; left as it is. A GPU that is not there
                is replaced by the CPU.
            class_names: default: those in the weights, or of the config's datasets.

        Raises:
            ConfigError: the config cannot be used.
            FileNotFoundError: the weights are not there.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.AMP.ENABLED = False  # a matter of training
        check_weights(cfg)
        validate_cfg(cfg)
        resolve_device(cfg)
        settle_autocast(cfg)
        cfg.freeze()
        self.cfg = cfg
        self.model, self.class_names = load_model(cfg, class_names or ())
        self.detector: Detector = build_detector(cfg, self.model)

    @classmethod
    def from_run(
        cls,
        folder: str | os.PathLike[str],
        weights: str = "",
        *,
        device: str = "",
        score_thresh: float | None = None,
        opts: Sequence[Any] = (),
    ) -> Predictor:
        """The model of a training.

        Args:
            folder: its OUTPUT_DIR; "demo" is a small model of shapes that comes with the package.
            weights: "" is the final model, or the newest of a run that has not ended; "best" the
                one of the best evaluation; else a file.
            device: "cpu" or "cuda"; default: the config's, or the CPU where that is absent.
            score_thresh: detections have at least this score; default: the config's
                ``SCORE_THRESH_TEST``, as in the evaluation.
            opts: further config keys and values, ``"KEY", value, ...``.

        Raises:
            FileNotFoundError: names what is not there.
        """
        return cls._adapted(cfg_of_run(os.fspath(folder), weights), device, score_thresh, opts)

    @classmethod
    def from_export(
        cls,
        path: str | os.PathLike[str],
        *,
        device: str = "",
        score_thresh: float | None = None,
        opts: Sequence[Any] = (),
    ) -> Predictor:
        """The model of an exported file, run by what the file is for; PyTorch computes no network.

        Args:
            path: of the file, or of its folder.
            device: "cpu" or "cuda"; default: the CPU.
            score_thresh, opts: as of :meth:`from_run`, as far as the file leaves the choice.

        Raises:
            FileNotFoundError: the file or its ``model.json`` is not there.
            InputError: they do not belong together, or the file cannot do what is asked for.
            MissingPackageError: what runs the file is not installed.
        """
        return cls._adapted(cfg_of_export(path), device, score_thresh, opts)

    @classmethod
    def _adapted(
        cls, cfg: CfgNode, device: str, score_thresh: float | None, opts: Sequence[Any]
    ) -> Predictor:
        merge_opts(cfg, list(opts))
        if device:
            cfg.MODEL.DEVICE = device
        if score_thresh is not None:
            if not 0 <= score_thresh <= 1:
                raise InputError(f"score_thresh is {score_thresh}; it must be between 0 and 1")
            node = detection_node(cfg)
            if node is not None:
                node.SCORE_THRESH_TEST = score_thresh
        return cls(cfg)

    def __call__(
        self,
        source: Any,
        channels: str = "",
        name: str = "",
        *,
        scale: float | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> Prediction:
        """The detections of one picture.

        Args:
            source: a path, a Pillow image, an array (H, W, 3), (H, W, 4) or (H, W), or a
                :class:`Picture`.
            channels: of an array: "RGB", "BGR", "RGBA", "BGRA" or "L"; never guessed.
            name: for the result; the path by default.
            scale: of an array of uint16: what makes 0 to 255 of its values, such as 255 / 4095.
            value_range: of an array of floats: the values that become 0 and 255, such as (0, 1).

        Raises:
            BadImageError: a file that cannot be read.
            InputError: an array whose meaning would have to be guessed.
        """
        picture = source
        if not isinstance(source, Picture):
            rules: Any = {"scale": scale, "value_range": value_range}
            picture = Picture(source, channels, name, **rules)
        (read,) = read_ahead([picture], self.read, workers=0, ahead=1)
        if read.error is not None:
            raise read.error
        return self._predict(self.detector, [read])[0]

    def stream(
        self,
        sources: Iterable[Any],
        batch_size: int | None = 1,
        *,
        channels: str = "",
        workers: int | None = None,
        on_error: str = "raise",
        window: int = WINDOW,
    ) -> Iterator[Prediction | FailedPicture]:
        """The detections of many pictures, in their order, in memory that does not grow.

        Pictures are read while the model computes. Only pictures of one padded size are put in a
        batch, so that each gets the detections that it gets by itself.

        Args:
            sources: as of :meth:`__call__`; may be endless.
            batch_size: at most so many pictures go through the network at once; None: 32 on a GPU
                and 4 on a CPU, halved as often as they do not fit into memory.
            channels: of arrays.
            workers: threads that read; default: the cores, 4 at most.
            on_error: "raise", or "yield" a :class:`FailedPicture` in its place.
            window: batches that are read before the first comes out; 1 for live sources.
        """
        if isinstance(sources, str | os.PathLike | np.ndarray):
            raise InputError("stream takes several pictures; put one in a list, as in [picture]")
        fitting = None
        if batch_size is None:
            fitting = Fitting()
            batch_size = AUTO_BATCH.get(self.cfg.MODEL.DEVICE.split(":")[0], AUTO_BATCH["cpu"])
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; it must be a whole number from 1 on")
        if on_error not in ("raise", "yield"):
            raise InputError(f"on_error is '{on_error}'; use raise or yield")
        lanes = num_lanes(self.detector, batch_size)
        detector: Any = self.detector
        predict: Any = functools.partial(self._predict, detector if lanes < 2 else detector.detect)
        if fitting is not None:
            predict = functools.partial(fitting, predict)
        of_stream = batch_size, lanes, workers, on_error == "raise", window
        stream = Stream(self.read, self._batch_key, predict, *of_stream)
        return stream(x if isinstance(x, Picture) else Picture(x, channels) for x in sources)

    def read(self, picture: Picture) -> np.ndarray:
        """Its pixels, upright, (H, W, C) uint8 in ``INPUT.FORMAT``.

        Raises:
            BadImageError: a file that cannot be read.
        """
        node = self.cfg.INPUT
        pixels = read_pixels(picture, node.FORMAT, node.get("SIXTEEN_BIT", ""))
        if 0 in pixels.shape:
            raise BadImageError(f"{picture.label or 'the picture'} has no pixels")
        return pixels

    def _batch_key(self, read: ReadPicture) -> Any:
        return None if read.pixels is None else self.detector.batch_key(read.pixels)

    def _predict(
        self,
        detect: Callable[[Sequence[np.ndarray]], list[Instances]],
        batch: Sequence[ReadPicture],
    ) -> list[Prediction]:
        start = time.perf_counter()
        pictures = [read.pixels for read in batch if read.pixels is not None]
        found = detect(pictures)
        model = (time.perf_counter() - start) / len(batch) * 1e3
        return [
            Prediction(
                read.picture.label,
                read.index,
                instances,
                self.class_names,
                to_rgb(pixels, self.cfg.INPUT.FORMAT),
                read.picture.extra,
                {"read": round(read.seconds * 1e3, 3), "model": round(model, 3)},
            )
            for read, pixels, instances in zip(batch, pictures, found, strict=True)
        ]
