"""Whether somebody listens to modules: fast paths, which do not call them all, then step aside."""

from __future__ import annotations

from torch import nn

from ...compat import has_hooks


def is_hooked(*modules: nn.Module) -> bool:
    """Whether somebody listens to, or has replaced the ``forward`` of, one of the modules."""
    return any(has_hooks(module) or "forward" in vars(module) for module in modules)
