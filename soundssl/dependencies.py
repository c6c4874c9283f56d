"""Dependencies that single nets or options need: imported where they are used; one that fails costs one clear line.

Some are extras, which may not be installed. Others are libraries built for one release of torch, or for torch with
CUDA, which do not load beside another: their import then ends in an error of the linker or of torch's dispatcher.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import metadata

from soundssl import SoundsslError


class DependencyError(SoundsslError):
    """A package that is needed here is not installed, or does not load; `package` is its name."""

    def __init__(self, line: str, package: str) -> None:
        super().__init__(line)
        self.package = package


@contextlib.contextmanager
def needed(user: str, package: str, remedy: str, beside: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn a failing import in the body into DependencyError: who needs which package, what is wrong, what to do.

    `beside` names the packages on which it is built; their versions are told where it does not load.
    """
    try:
        yield
    # An undefined symbol is an OSError, an operator that is not registered a RuntimeError, and a package that failed
    # once is left half made, without its attributes.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
            raise DependencyError(f"{user} needs {package}, which is not installed; {remedy}", package) from error
        where = " and ".join(each for each in map(_release, beside) if each)
        fact = f"which does not load{' beside ' * bool(where)}{where} ({_cause(error)})"
        raise DependencyError(f"{user} needs {_release(package) or package}, {fact}; {remedy}", package) from error


def _release(package: str) -> str:
    """Return a package with its version, as `torch 2.14.1`; nothing where it is not installed under this name."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def _cause(error: BaseException) -> str:
    """Return in a line what lies at the bottom of an error: the linker's words, not those of who passed them on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).splitlines()[:1]) or type(error).__name__
