"""Threads, forks, interrupts, and arrays of more elements than an int32 counts."""

import functools
import os
import signal
import threading

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt.errors import ConcurrencyError
from tests.hostile import F32, buffer, needs, same
from tests.kernels import python
from tests.processes import in_child


def run_together(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def trained(seed, size=2000, steps=40):
    rng = np.random.default_rng(seed)
    params = buffer(w=rng.standard_normal(size))
    opt = nb.optimizer.Momentum(0.1, 0.9, params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    for _ in range(steps):
        opt.step({"w": params["w"].value + rng.standard_normal(size)})
    return params.fingerprint()


def two_optimizers():
    alone = [trained(seed) for seed in (0, 1)]
    found = {}
    run_together(*(lambda seed=seed: found.update({seed: trained(seed)}) for seed in (0, 1)))
    assert [found[0], found[1]] == alone


def one_optimizer():
    params = buffer(w=np.zeros(200_000))
    params["w"].grad.fill(1.0)
    opt = nb.optimizer.SGD(1.0, params)
    opt.compile()
    start, refusals = threading.Barrier(2), []

    def work():
        numba.set_num_threads(1)  # for this thread: no lock of a threading layer shall help
        start.wait()
        for _ in range(2000):
            try:
                opt.step()
            except ConcurrencyError:
                refusals.append(1)
            if len(refusals) > 3:
                return

    run_together(work, work)
    assert refusals
    assert (params["w"].value == F32(-opt.step_count)).all()


def a_fork():
    needs(os, "fork")
    params = buffer(w=np.ones(100), attrs={"w": nb.ParamAttr(learning_rate=0.5)})
    twin = buffer(w=np.ones(100), attrs={"w": nb.ParamAttr(learning_rate=0.5)})
    opts = [nb.optimizer.Momentum(0.1, 0.9, p) for p in (params, twin)]
    for opt in opts:
        opt.step({"w": np.ones(100)})
    for _ in range(3):
        opts[1].step({"w": np.ones(100)})

    def work():
        for _ in range(3):
            opts[0].step({"w": np.ones(100)})
        return params.fingerprint() == twin.fingerprint() and nb.norm(np.ones(4)) == 2.0

    assert in_child(work)


LAYERS = """
import os, threading
import numba
import numpy as np
import nbopt as nb
from tests.processes import in_child

def model(seed):
    rng = np.random.default_rng(seed)
    params = nb.ParameterBuffer.from_arrays({"w": rng.standard_normal(100_000)}, dtype="float32")
    opt = nb.optimizer.Momentum(0.1, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    params["w"].grad = rng.standard_normal(100_000)
    return params, opt

def bits(seed, steps=40):
    params, opt = model(seed)
    for _ in range(steps):
        opt.step()
    return params.fingerprint()

alone = [bits(seed) for seed in range(4)]
print(numba.threading_layer())
if hasattr(os, "fork"):
    print("fork", in_child(lambda: bits(0) == alone[0]))
found = {}
threads = [threading.Thread(target=lambda s=s: found.update({s: bits(s)})) for s in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("threads", [found[seed] for seed in range(4)] == alone)
"""


@functools.cache
def layer(name):
    """What a process says that forks, and then steps in four threads, under this threading layer."""
    try:
        return python("-c", LAYERS, NUMBA_THREADING_LAYER=name, NUMBA_NUM_THREADS="2").splitlines()
    except AssertionError as error:
        if "No threading layer could be loaded" in str(error):
            pytest.skip(f"this machine has no {name} layer")
        raise


def fork_under_workqueue():
    needs(os, "fork")
    assert layer("workqueue")[:2] == ["workqueue", "fork True"]


def fork_under_omp():
    needs(os, "fork")
    assert layer("omp")[:2] == ["omp", "fork True"]


def threads_under_workqueue():
    assert layer("workqueue")[-1] == "threads True"


def threads_under_omp():
    assert layer("omp")[-1] == "threads True"


def interrupts():
    """Ctrl-C at twenty moments: every element has taken the same steps, and those are counted."""
    needs(signal, "setitimer")
    params = buffer(a=np.zeros(20_000), b=np.zeros(300))
    params.flat_grad[:] = 1.0
    opt = nb.optimizer.SGD(1.0, params)
    opt.step()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    def until_interrupted(seconds):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while True:
            opt.step()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(20):
            taken = opt.step_count
            with pytest.raises(KeyboardInterrupt):
                until_interrupted(2e-3 + number * 3.7e-5)
            assert opt.step_count > taken
            assert (params.to_vector() == F32(-opt.step_count)).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def more_than_an_int32():
    array = np.zeros(2**31 + 10, F32)  # lazily mapped: no memory is used
    array[0], array[-1] = 3.0, 4.0
    same(nb.norm(array), 5.0)
