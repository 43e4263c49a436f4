"""What nbopt found on this machine, and what would make it faster."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import textwrap
from typing import Any

import nbopt as nb
from nbopt.errors import HyperparameterError

__all__ = ["show_config"]

_PACKAGES = ("numpy", "numba", "scipy", "numba-cuda")


def show_config(mode: str = "text") -> dict[str, Any] | None:
    """Print what nbopt found on this machine: versions, processor, threads, CUDA, cache, and advice.

    The command ``python -m nbopt info`` prints the same.

    Parameters
    ----------
    mode : {"text", "json", "dict"}
        Print for people or for programs, or print nothing and return a dictionary.

    Returns
    -------
    dict or None

    Examples
    --------
    >>> import nbopt as nb
    >>> nb.show_config()
    nbopt ...
    <BLANKLINE>
    Packages  numpy ...
    CPU       ...
    Threads   ...
    CUDA      ...
    Cache     ...
    >>> sorted(nb.show_config("dict"))
    ['advice', 'cache', 'cpu', 'cuda', 'threads', 'versions']
    """
    if mode not in ("text", "json", "dict"):
        raise HyperparameterError(f"mode must be 'text', 'json' or 'dict', got {mode!r}")
    found = gather()
    if mode == "dict":
        return found
    print(json.dumps(found, indent=2) if mode == "json" else as_text(found))  # noqa: T201 - its purpose
    return None


def gather() -> dict[str, Any]:
    """Return what was found, as plain values."""
    from nbopt.kernels import machine

    found: dict[str, Any] = {
        "versions": {"nbopt": nb.__version__, "python": platform.python_version(), **_versions()},
        "cpu": machine.cpu(),
        "threads": machine.threads(),
        "cuda": machine.cuda(),
        "cache": machine.cache(),
    }
    return found | {"advice": advice(found)}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def as_text(found: dict[str, Any]) -> str:
    """Return what was found in lines for people."""
    versions, cpu, threads, cache, cuda = (found[k] for k in ("versions", "cpu", "threads", "cache", "cuda"))
    packages = [f"{name} {versions[name]}" for name in _PACKAGES if versions[name]]
    many = f"{threads['used']} for large models, on {_count(threads['cores'], 'core')}"
    size = f"{cache['bytes'] / 1e6:.1f} MB of compiled steps in" if cache["files"] else "empty:"
    lines = {
        "Packages": ", ".join(packages),
        "CPU": f"{cpu['name']}, {cpu['simd']}: {cpu['bits'] // 32} numbers of float32 at a time",
        "Threads": f"{many}, by Numba's layer {threads['layer']}",
        "CUDA": "; ".join(f"cuda:{i} is {name}" for i, name in enumerate(cuda["devices"]))
        or f"cannot be used: {cuda['missing']}",
        "Cache": f"{size} {cache['folder']}" if cache["folder"] else "none: compiled steps are not kept",
    }
    head = (
        f"nbopt {versions['nbopt']} on Python {versions['python']}, {platform.system()} {platform.machine()}"
    )
    body = [_wrapped(f"{name:<10}", text) for name, text in lines.items()]
    tips = [_wrapped("- ", text) for text in found["advice"]]
    return "\n".join([head, "", *body, *(["", "Advice", *tips] if tips else [])])


def _wrapped(head: str, text: str) -> str:
    wrapper = textwrap.TextWrapper(100, head, " " * len(head), break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def advice(found: dict[str, Any]) -> list[str]:
    """Return what could be better on this machine, and the mend of each."""
    cpu, threads, cache, cuda = (found[key] for key in ("cpu", "threads", "cache", "cuda"))
    tips = []
    if not cpu["compiles"]:
        tips.append("NUMBA_DISABLE_JIT is set, and nbopt runs compiled code only: unset it.")
    elif cache["folder"] is None:
        tips.append(
            "Compiled steps cannot be kept on disk, so each process compiles for some seconds: set "
            "NUMBA_CACHE_DIR to a directory that can be written."
        )
    elif not cache["files"]:
        tips.append(
            "Nothing is compiled yet, so a first step takes some seconds: python -m nbopt warmup compiles "
            "the usual steps ahead of time."
        )
    quota = threads["quota"]
    if quota is not None and threads["used"] > max(1.0, quota + 0.5):
        tips.append(
            f"This container gets the time of {quota:g} cores, and {threads['used']} threads would wait for "
            f"each other: set NUMBA_NUM_THREADS={max(1, round(quota))}."
        )
    elif threads["used"] > threads["cores"]:
        tips.append(
            f"{threads['used']} threads share {_count(threads['cores'], 'core')} and wait for each other: "
            f"set NUMBA_NUM_THREADS={threads['cores']}."
        )
    elif threads["used"] == 1 < threads["cores"]:
        tips.append(
            f"One thread is used, of {threads['cores']} cores: unset NUMBA_NUM_THREADS, unless other "
            "processes need them."
        )
    if threads["layer"] == "workqueue" and threads["used"] > 1:
        tips.append(
            "Only Numba's slow threads, workqueue, were found. Install OpenMP (on Debian and Ubuntu: apt-get "
            "install libgomp1), or pip install tbb."
        )
    if cpu["chosen"]:
        tips.append(
            f"NUMBA_CPU_NAME asks for code for {cpu['name']}; unset it to use all that this processor can do."
        )
    if not cuda["devices"] and cuda["driver"]:
        tips.append(f"This machine has an NVIDIA driver, but CUDA cannot be used: {cuda['missing']}.")
    return tips
