"""A hundred thousand small parameters: the time to build and to step them, and the memory that they take."""

from __future__ import annotations

import tracemalloc

import nbopt as nb

MANY, FEW = 100_000, 5_000


def build(count: int) -> nb.optimizer.Momentum:
    """Create parameters by name, lay them out, and hand them to an optimizer that clips."""
    params = nb.ParameterBuffer(seed=0)
    for i in range(count):
        params.create_parameter([4], name=f"layer.{i}.weight")
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    opt.compile()
    return opt


class Build:
    """From nothing to an optimizer that is ready to step."""

    params = ([MANY],)
    param_names = ("parameters",)
    number = repeat = 1
    timeout = 300

    def setup(self, count: int) -> None:
        build(10).step()

    def time_build(self, count: int) -> None:
        build(count)

    def peakmem_build(self, count: int) -> None:
        build(count)


class Step:
    """One step of many parameters, of four elements each."""

    params = ([MANY],)
    param_names = ("parameters",)
    timeout = 300

    def setup(self, count: int) -> None:
        self.opt = build(count)

    def time_step(self, count: int) -> None:
        self.opt.step()


def track_bytes_per_parameter() -> float:
    """What Python and NumPy allocate for a parameter of four elements, its tables and its velocity."""
    build(10)
    tracemalloc.start()
    try:
        opt = build(FEW)
        held, _ = tracemalloc.get_traced_memory()
        return held / len(opt.parameters)
    finally:
        tracemalloc.stop()


track_bytes_per_parameter.unit = "bytes"
