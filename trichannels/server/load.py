"""From ``MODULE:APP`` to the application, and what can be wrong with it. Importing is all that happens here."""

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, cast

from ..events import ASGIApp
from ..exceptions import ConfigError, StartupFailed
from ..layers.memory import InMemoryChannelLayer

WRAPPERS = ("app", "inner", "application", "router", "callback", "__wrapped__")
"""Attributes behind which middleware, mounts and routes keep what they wrap."""


def load_app(target: str, app_dir: str = ".") -> ASGIApp:
    """Import ``MODULE:APP`` (APP may have dots), with ``app_dir`` first on the import path.

    Raises :class:`ConfigError` if there is no such module or attribute or it is not callable. An error of the module's
    own leaves its traceback on standard error and becomes :class:`StartupFailed`.
    """
    module_name, _, attribute = target.partition(":")
    is_file = Path(app_dir, module_name).is_file()
    if not attribute or is_file or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{target!r} is not MODULE:APP: write it as {_advice(module_name, attribute)}")
    app = _find(_import(module_name, app_dir), module_name, attribute)
    if not callable(app):
        raise ConfigError(
            f"{target} is of type {type(app).__name__}, not an application: "
            "name a callable that takes scope, receive and send"
        )
    return cast(ASGIApp, app)


def require_shared_layers(app: object, workers: int) -> None:
    """Raise :class:`ConfigError` if ``app`` has a layer in memory and there is more than one worker."""
    if workers == 1:
        return
    for alias, layer in layers_of(app):
        if is_in_memory(layer):
            raise ConfigError(
                f"--workers {workers} needs channel layers that reach every process, but layer {alias!r} is an "
                f"{InMemoryChannelLayer.__name__}, which ends at its own: use --workers 1, or a layer that is shared"
            )


def is_in_memory(layer: object) -> bool:
    """Say whether a layer, or one that it wraps, ends at its own process."""
    return any(isinstance(part, InMemoryChannelLayer) for part in parts_of(layer))


def layers_of(app: object) -> Iterator[tuple[str, object]]:
    """Yield the alias and the layer of every router inside ``app``, as far as wrappers show what they wrap."""
    for part in parts_of(app):
        layers = getattr(part, "layers", None)
        if isinstance(layers, Mapping):
            yield from layers.items()


def parts_of(app: object) -> Iterator[object]:
    """Yield ``app`` and all that it wraps or routes to, each once."""
    waiting, seen = [app], set[int]()
    while waiting:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [getattr(part, name, None) for name in WRAPPERS]
        routes = getattr(part, "routes", ())
        waiting += routes if isinstance(routes, list | tuple) else ()
        mapping = getattr(part, "application_mapping", {})
        waiting += mapping.values() if isinstance(mapping, Mapping) else ()


def _advice(module: str, attribute: str) -> str:
    """Return what was meant, as far as one can tell: a file's path is the usual mistake."""
    if module.endswith(".py"):
        module = ".".join(Path(module).with_suffix("").parts)
    usable = all(part.isidentifier() for part in module.split("."))
    return f"{module if usable else 'chat'}:{attribute or 'application'}"


def _import(name: str, app_dir: str) -> ModuleType:
    directory = str(Path(app_dir).resolve())
    if directory not in sys.path[:1]:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"there is no module {error.name!r} in {directory} or on Python's path: "
                "check its name, or say with --app-dir where it is"
            ) from error
        raise _failed(name, error) from error
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _failed(module: str, error: BaseException) -> StartupFailed:
    """Show the traceback from the user's first line on, and return what to raise."""
    traceback.print_exception(type(error), error, _own_part(error.__traceback__))
    return StartupFailed(f"{module} could not be imported ({type(error).__name__}): mend what the traceback shows")


def _own_part(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_machinery(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _find(module: ModuleType, name: str, attribute: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], 1)
            cure = f"did you mean {close[0]!r}?" if close else "name the variable that holds the application"
            where = f"module {name!r}" if found is module else f"{name}:{attribute.rpartition('.' + part)[0]}"
            raise ConfigError(f"{where} has no {part!r}: {cure}")
        found = getattr(found, part)
    return found
