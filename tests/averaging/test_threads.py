"""No number of threads changes a bit of an average; forked children may go on."""

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.kernels.cpu import run
from tests.kernels import python
from tests.processes import forks, in_child

SIZES = {"a": 1, "b": 4095, "c": 77, "d": 4097, "e": 0, "f": 20_011, "g": 4096}
ALWAYS, NEVER = 0, 2**62  # values of PARALLEL_FROM


@pytest.fixture
def threads():
    before = numba.get_num_threads()
    yield range(1, numba.config.NUMBA_NUM_THREADS + 1)
    numba.set_num_threads(before)


def play(dtype, make):
    """Some updates with left-out parameters; the bits of what is applied, and of the state."""
    rng = np.random.default_rng(0)
    attrs = {"c": nb.ParamAttr(do_model_average=False), "d": nb.ParamAttr(trainable=False)}
    values = {name: rng.normal(size=size) for name, size in SIZES.items()}
    params = nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)
    average = make(params)
    update = getattr(average, "step", getattr(average, "update", None))
    padding = np.ones(params.trainable_flat.size, bool)
    for where in params.slices.values():
        padding[where] = False
    for _ in range(7):
        params.trainable_flat[:] = np.where(padding, 7.0, rng.normal(size=params.trainable_flat.size))
        update()
    with average.apply():
        assert (params.trainable_flat[padding] == 7.0).all()
        assert not average._sums[:, padding].any()
        applied = params.trainable_flat.tobytes()
    return applied, average._sums.tobytes()


MAKE = {
    "window": lambda params: nb.ModelAverage(0.5, params, 2, 3),
    "exponential": lambda params: nb.ExponentialMovingAverage(0.9, params),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit(monkeypatch, threads, dtype, make):
    monkeypatch.setattr(run, "PARALLEL_FROM", NEVER)
    expected = play(dtype, make)
    monkeypatch.setattr(run, "PARALLEL_FROM", ALWAYS)
    for count in threads:
        numba.set_num_threads(count)
        assert play(dtype, make) == expected


SEVERAL = """
import threading
import numba
import numpy as np
import nbopt as nb

def update(average):
    for _ in range(100):
        average.update()

params = [nb.ParameterBuffer.from_arrays({"w": np.full(100_000, float(i))}) for i in range(4)]
averages = [nb.ExponentialMovingAverage(0.5, p) for p in params]
averages[0].update()  # starts the layer
threads = [threading.Thread(target=update, args=(average,)) for average in averages]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for average in averages:
    average.apply()
print(numba.threading_layer(), [bool((p["w"].value == i).all()) for i, p in enumerate(params)])
"""


def test_several_threads_under_the_layer_that_bears_one():
    """The workqueue layer ends a process in which two threads enter it."""
    printed = python("-c", SEVERAL, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2")
    assert printed == f"workqueue {[True] * 4}\n"


@forks
@pytest.mark.parametrize("size", [50, 100_000])
def test_a_child_may_use_what_another_thread_was_using(size):
    params = nb.ParameterBuffer.from_arrays({"w": np.ones(size)})
    average = nb.ModelAverage(0.5, params)
    average.step()
    average._lock.acquire()  # as if another thread were inside a call

    def work():
        params["w"].value += 2
        average.step()
        with average.apply():
            return (params["w"].value == 2.0).all()

    assert in_child(work)
    average._lock.release()
