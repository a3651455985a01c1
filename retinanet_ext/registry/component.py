"""A registry that knows its config key, and what its entries may say of themselves.

The registries themselves, and what an entry of each is called with: :mod:`retinanet_ext.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fvcore.common.registry import Registry

from ..compat import replace_entry
from ..errors import ConfigError, InputError, did_you_mean

T = TypeVar("T", bound=Callable[..., Any])

ConfigCheck = Callable[[Any], Sequence[str] | None]
"""Raises a UserError for a config that cannot work; may return warnings."""

CONFIG_CHECKS: dict[str, ConfigCheck] = {}
"""Checks of whole configs, by where they are defined; :func:`register_config_check` adds one."""

COMPONENT_REGISTRIES: list[ComponentRegistry] = []
"""All registries of this kind, yours included."""


def register_config_check(check: T) -> T:
    """Decorator: have ``validate_cfg`` call ``check(cfg)``; a reloaded module replaces its own."""
    CONFIG_CHECKS[f"{check.__module__}.{check.__qualname__}"] = check
    return check


def reads(*config_keys: str, check_config: ConfigCheck | None = None) -> Callable[[T], T]:
    """Decorator for a function that is an entry of a registry: ``config_keys``, ``check_config``.

    A class has them as attributes instead.
    """

    def decorate(function: T) -> T:
        function.config_keys = config_keys  # type: ignore[attr-defined]
        if check_config is not None:
            function.check_config = check_config  # type: ignore[attr-defined]
        return function

    return decorate


def require_keys(cfg: Any, *names: str) -> None:
    """Check that a config has keys of this package: someone's own script may not have added them.

    Args:
        cfg: the config.
        names: full names.

    Raises:
        ConfigError: one is missing; says how all of them are added.
    """
    for name in names:
        node = cfg
        for part in name.split("."):
            if part not in node:
                raise ConfigError(
                    f"the config has no key {name}, nor the others of this package; call "
                    "retinanet_ext.add_retinanet_ext_config(cfg) right after Detectron2's "
                    "get_cfg(), before a file is merged, or start from retinanet_ext.get_cfg()"
                )
            node = node[part]


def node_of(cfg: Any, node: Any = None) -> Any:
    """The section that a component reads: ``node``, or without one ``cfg.MODEL.RETINANET``."""
    return cfg.MODEL.RETINANET if node is None else node


def register_once(registry: Registry) -> Callable[[T], T]:
    """Decorator that registers a class under its name, replacing an earlier version of itself.

    Detectron2's own ``register`` fails when a notebook reloads the module that holds the class.

    Raises:
        ConfigError: if another class already has that name.
    """

    def decorate(cls: T) -> T:
        name = cls.__name__
        old = dict(registry).get(name)
        if old is None:
            registry.register(cls)
        elif (old.__module__, old.__qualname__) == (cls.__module__, cls.__qualname__):
            replace_entry(registry, name, cls)
        else:
            raise ConfigError(
                f"'{name}' is already registered by {old.__module__}; "
                f"give the class in {cls.__module__} another name"
            )
        return cls

    return decorate


class ComponentRegistry(Registry):
    """A registry whose lookup error lists the choices and whose entries survive a module reload."""

    def __init__(
        self,
        name: str,
        config_key: str,
        aliases: Mapping[str, str] | None = None,
        takes_cfg_only: bool = False,
    ):
        """
        Args:
            name: what the entries are, for messages.
            config_key: the full name of the config key that chooses an entry.
            aliases: further values of that key, and the entries that they stand for.
            takes_cfg_only: whether ``entry(cfg)`` is all that it takes to build one, so that
                validation can try.
        """
        super().__init__(name)
        self.config_key = config_key
        self.aliases = dict(aliases or {})
        self.takes_cfg_only = takes_cfg_only
        COMPONENT_REGISTRIES.append(self)

    def register(self, obj: Any = None) -> Any:
        """Register a class; use as ``@REGISTRY.register()`` or ``REGISTRY.register(cls)``."""
        if obj is None:
            return self.register
        if obj.__name__ in self:
            return register_once(self)(obj)
        super().register(obj)
        return obj

    def get(self, name: str) -> Any:
        """Return the entry called ``name``, or that an alias ``name`` stands for.

        Raises:
            ConfigError: names the config key, the value, and every known entry.
        """
        name = self.aliases.get(name, name)
        if name not in self:
            known = [*self.aliases, *sorted(dict(self))]
            raise ConfigError(
                f"{self.config_key} is '{name}', which is not a registered {self._name}."
                f"{did_you_mean(name, known)} Known: {', '.join(known)}. If it is your own class, "
                "import the module that registers it before the model is built."
            )
        return super().get(name)

    def build(self, cfg: Any, *args: Any, node: Any = None) -> Any:
        """Build the entry that ``node`` chooses, from ``node``.

        Args:
            cfg: the config.
            args: what an entry takes beside the config.
            node: the section to read. Default: ``MODEL.RETINANET``; an entry that takes no ``node``
                works with that one only.
        """
        entry = self.get(node_of(cfg, node)[self.config_key.rpartition(".")[2]])
        return entry(cfg, *args) if node is None else entry(cfg, *args, node=node)

    def check(self, cfg: Any, node: Any = None) -> list[str]:
        """Ask the entry that ``node`` chooses whether it can work; arguments of :meth:`build`.

        Returns:
            Warnings.

        Raises:
            ConfigError: there is no such entry.
            InputError: it cannot; names the key that chooses it, or those that it reads.
        """
        section, _, key = self.config_key.rpartition(".")
        name = node_of(cfg, node)[key]
        entry = self.get(name)
        further = {} if node is None else {"node": node}
        try:
            found = entry.check_config(cfg, **further) if hasattr(entry, "check_config") else ()
            if self.takes_cfg_only:
                entry(cfg, **further)
        except ValueError as error:
            names_a_key = f"{section}." in str(error)
            start = "" if names_a_key else f"{self.config_key} is '{name}', and "
            raise InputError(f"{start}{error}") from error
        return list(found or ())
