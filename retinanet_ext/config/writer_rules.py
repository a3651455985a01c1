"""Check of WRITERS: the services that a run's curves are also sent to."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..errors import did_you_mean

REMOTE_WRITERS = ("wandb", "mlflow")


def check_writers(cfg: CfgNode) -> None:
    """Raise on names in ``WRITERS`` that do not exist.

    Raises:
        ValueError: it is not a list of names, or has one twice.
        KeyError: an unknown name, with the nearest real one.
    """
    names = cfg.WRITERS
    if isinstance(names, str) or len(set(names)) < len(names):
        raise ValueError(
            f"WRITERS is {names!r}; it must be a list of different names among "
            f"{', '.join(REMOTE_WRITERS)}"
        )
    for name in names:
        if name not in REMOTE_WRITERS:
            raise KeyError(
                f"WRITERS has '{name}', which is unknown.{did_you_mean(str(name), REMOTE_WRITERS)} "
                f"Known: {', '.join(REMOTE_WRITERS)}. metrics.json and TensorBoard need no entry."
            )
