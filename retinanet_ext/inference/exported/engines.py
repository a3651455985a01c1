"""Programs that run an exported file: ONNX Runtime, OpenVINO, and PyTorch's own two."""

from __future__ import annotations

import importlib
import threading
import warnings
from typing import Any, Protocol

import numpy as np
import torch

from ...errors import InputError, MissingPackageError
from .sidecar import NAME, Sidecar, digest_of

__all__ = ["Engine", "computes_in_bfloat16", "open_engine", "require"]

SIDECAR_KEY = "retinanet_ext.sidecar"
"""Of an ONNX file's metadata: the digest of its ``model.json``."""


class Engine(Protocol):
    """Runs a file; several threads may call it, of which some engines let one compute at a time."""

    name: str
    """What runs it and on what, for people."""

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name.

        Args:
            images: (N, C, H, W) float32, 0 to 255.
        """


def open_engine(sidecar: Sidecar, device: str = "cpu", precision: str = "") -> Engine:
    """What runs the file.

    Args:
        sidecar: of the file.
        device: "cpu", or "cuda" where the program has it.
        precision: "" for that of the file, or "bfloat16" where :func:`computes_in_bfloat16`.

    Raises:
        MissingPackageError: the program is not installed; names the extra.
        InputError: it cannot read the file, or does not run on this device or in this precision.
    """
    if computes_in_bfloat16(sidecar) and precision in ("", "bfloat16"):
        return OpenVino(sidecar, device, precision)
    if precision:
        raise InputError(
            f"MODEL.SPEEDUPS.AUTOCAST is {precision}, but '{sidecar.path}' is computed in the "
            "precision that it was exported in (an OpenVINO file also in bfloat16); leave "
            "--precision out"
        )
    return _ENGINES[sidecar.kind](sidecar, device)


def computes_in_bfloat16(sidecar: Sidecar) -> bool:
    """Whether what runs the file can compute it in bfloat16, whatever it holds."""
    return sidecar.kind == "openvino"


def require(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Raises:
        MissingPackageError: it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"this needs the package {module.partition('.')[0]} ({error}); install the extra: "
            f"pip install 'retinanet_ext[{extra}]'"
        ) from error


class OnnxRuntime:
    """By onnxruntime, with as many threads as PyTorch."""

    def __init__(self, sidecar: Sidecar, device: str):
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that wait for work by spinning take the time of those that read pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        wanted = "CPUExecutionProvider"
        if device.startswith("cuda"):
            wanted = "CUDAExecutionProvider"
        if wanted not in runtime.get_available_providers():
            raise InputError(
                f"the device is {device}, but this onnxruntime has no {wanted}; use --device cpu, "
                "or install onnxruntime-gpu in its place"
            )
        try:
            self.session = runtime.InferenceSession(sidecar.path, options, providers=[wanted])
        except Exception as error:  # of several types, none of them public
            raise InputError(f"onnxruntime cannot run '{sidecar.path}': {error}") from error
        if wanted not in self.session.get_providers():  # it goes to the CPU without a word
            raise InputError(
                f"onnxruntime was asked for {wanted} and took {self.session.get_providers()[0]}; "
                "use --device cpu"
            )
        self.name = f"ONNX Runtime {runtime.__version__}, {wanted}"
        self._input = self.session.get_inputs()[0].name
        self._names = [output.name for output in self.session.get_outputs()]
        _check_signed(self.session.get_modelmeta().custom_metadata_map.get(SIDECAR_KEY), sidecar)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self.session.run(self._names, {self._input: images})
        return dict(zip(self._names, outputs, strict=True))


class OpenVino:
    """By OpenVINO, in float32, or in bfloat16 where the CPU has it and it is asked for."""

    def __init__(self, sidecar: Sidecar, device: str, precision: str = ""):
        openvino = require("openvino", "openvino")
        if device != "cpu":
            raise InputError(f"the device is {device}, but OpenVINO is used on the CPU; pass cpu")
        core = openvino.Core()
        # float32 as it was verified: by itself it takes bfloat16 where the CPU has it.
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if precision else "f32",
        }
        model = core.read_model(sidecar.path)
        signed = model.has_rt_info(SIDECAR_KEY)
        _check_signed(model.get_rt_info(SIDECAR_KEY).astype(str) if signed else "", sidecar)
        self._model = core.compile_model(model, "CPU", config)
        self.name = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
        self._names = list(sidecar.meta["outputs"])
        self._lock = threading.Lock()  # calls share one request, and with it its outputs

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock:
            outputs = self._model(images)
        return {name: outputs[i] for i, name in enumerate(self._names)}


class Torch:
    """By PyTorch, of a program of torch.export or TorchScript."""

    def __init__(self, sidecar: Sidecar, device: str):
        self._device = torch.device(device)
        kept = {SIDECAR_KEY: ""}
        if sidecar.kind == "torchscript":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit")
                self._run: Any = torch.jit.load(
                    sidecar.path, map_location=self._device, _extra_files=kept
                )
        else:
            self._run = torch.export.load(sidecar.path, extra_files=kept).module()
            if self._device.type != "cpu":
                self._run.to(self._device)
        signed: str | bytes = kept[SIDECAR_KEY]
        _check_signed(signed.decode() if isinstance(signed, bytes) else signed, sidecar)
        self.name = f"PyTorch {torch.__version__}, {device}"
        self._names = list(sidecar.meta["outputs"])
        self._lock = threading.Lock()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock, torch.no_grad():
            outputs = self._run(torch.from_numpy(images).to(self._device))
        return {k: x.cpu().numpy() for k, x in zip(self._names, outputs, strict=True)}


def _check_signed(stored: str | None, sidecar: Sidecar) -> None:
    """Raise InputError unless the file was signed with this ``model.json``."""
    if stored != digest_of(sidecar.meta):
        raise InputError(
            f"the {NAME} beside '{sidecar.path}' was changed after the export, whose verification "
            "it no longer stands for; put it back, or export again"
        )


_ENGINES: dict[str, Any] = {
    "onnx": OnnxRuntime,
    "openvino": OpenVino,
    "torch-export": Torch,
    "torchscript": Torch,
}
