"""Results that nobody trained for, in the place where a run leaves them."""

from __future__ import annotations

from focal_loss_paper import runs


def put_result(book: runs.RunIndex, config: str, seed: int, ap: float | None, ms: float = 20):
    run = book.run(config, seed)
    named = {"config": run.config, "seed": seed, "iterations": 490, "seconds": 60.0}
    if ap is None:
        runs.write_json(run.folder / runs.RESULT, {**named, "status": "diverged"})
        return
    metrics = {"AP": ap, "AP50": ap + 20, "AP75": ap + 5}
    result = {**named, "status": "finished", "metrics": metrics, "seconds_per_image": ms / 1000}
    runs.write_json(run.folder / runs.RESULT, result)
