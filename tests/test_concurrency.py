"""Threads, forks, worker processes and Ctrl-C: the bits of a run alone, or an error; no wait for ever."""

import copy
import multiprocessing
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import nbopt as nb
from nbopt.errors import ConcurrencyError
from nbopt.kernels import tables as t
from tests.kernels import ROOT, python
from tests.processes import forks
from tests.workers import INTERRUPTED, LARGE, SMALL, bits, go_on, loop, model, take, trained


def run_together(works, seconds=120):
    """Run them in threads of their own, from one moment on; raise what they raised."""
    start, errors = threading.Barrier(len(works)), []

    def run(work):
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(deadline - time.monotonic())
    assert not any(thread.is_alive() for thread in threads), "they wait for one another"
    if errors:
        raise errors[0]


@pytest.fixture
def hasty():
    """Threads that take turns every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


# --- many optimizers in many threads --------------------------------------------------------------

THREADS, KINDS, STEPS = 8, 8, 240


def steps_of(kind):
    """An optimizer, one in eight a large one, and its way to step, a part of the steps at a time."""
    size = LARGE if kind == 0 else SMALL + kind
    params, opt = model(kind, size)
    grads = {name: p.grad.copy() for name, p in params.items()}
    _, state = opt.jit_step()
    ways = [opt.step, lambda: opt.step(grads), opt.minimize, lambda: loop(state, 1)]
    return params, opt, ways[kind % 4]


def test_many_optimizers_in_many_threads(hasty, counted):
    """Each thread takes its optimizers in turn; all have the bits that they have alone."""
    alone = [steps_of(kind) for kind in range(KINDS)]
    for _, _, step in alone:
        for _ in range(STEPS):
            step()
    models = [[steps_of(kind) for kind in range(KINDS)] for _ in range(THREADS)]

    def work(own):
        for _ in range(STEPS):
            for _, _, step in own:
                step()

    run_together([lambda own=own: work(own) for own in models])
    expected = [bits(params, opt) for params, opt, _ in alone]
    for own in models:
        assert [bits(params, opt) for params, opt, _ in own] == expected
    counted("steps in threads", THREADS * KINDS * STEPS)


def test_compiled_loops_beside_calls_from_python(hasty):
    """Long loops without the GIL keep nobody waiting, and are kept by nobody."""
    loops, calls = [model(seed, LARGE) for seed in range(3)], [model(seed, LARGE) for seed in range(3)]
    states = [opt.jit_step()[1] for _, opt in loops]
    loop(states[0], 0)

    def call(params, opt):
        average = nb.ExponentialMovingAverage(0.5, params)
        for _ in range(60):
            opt.step()
            average.update()
            copy.deepcopy(opt)

    works = [lambda s=state: loop(s, 60) for state in states]
    run_together([*works, *(lambda pair=pair: call(*pair) for pair in calls)])
    assert [bits(*pair) for pair in loops] == [bits(*pair) for pair in calls]


# --- one optimizer in two threads -----------------------------------------------------------------

CALLS = {
    "step": lambda w: w.opt.step(),
    "step with gradients": lambda w: w.opt.step(w.grads),
    "minimize": lambda w: w.opt.minimize(),
    "minimize a part": lambda w: w.opt.minimize(no_grad_set=["a"]),
    "state_dict": lambda w: w.opt.state_dict(),
    "set_state_dict": lambda w: w.opt.set_state_dict(w.state),
    "deepcopy": lambda w: copy.deepcopy(w.opt),
    "pickle": lambda w: pickle.dumps(w.opt),
    "save": lambda w: nb.save(w.path, w.opt),
    "save parameters": lambda w: nb.save(w.path, w.params),
    "restore": lambda w: nb.restore(w.saved, w.params, w.opt),
    "export": lambda w: nb.export(w.path, w.params),
    "average": lambda w: w.average.step(),
    "apply": lambda w: w.average.apply(),
    "exponential average": lambda w: w.exponential.update(),
}


class World:
    """An optimizer, and what is used beside it."""

    def __init__(self, folder):
        self.params, self.opt = model()
        self.grads = {name: p.grad.copy() for name, p in self.params.items()}
        self.average = nb.ModelAverage(0.5, self.params)
        self.exponential = nb.ExponentialMovingAverage(0.5, self.params)
        self.opt.step()
        self.average.step()
        self.path, self.saved = folder / "path", folder / "saved"
        self.state = self.opt.state_dict()
        nb.save(self.saved, self.params, self.opt)

    def __call__(self):
        averages = repr(self.average.state_dict()), repr(self.exponential.state_dict())
        return bits(self.params, self.opt), averages, self.params.flat_grad.tobytes()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_during_a_step_is_refused(name, tmp_path):
    """Nothing has changed then, and the next call works."""
    world = World(tmp_path)
    before = world()
    world.opt._tables.counters[t.BUSY] = 1  # as if another thread were inside a step
    with pytest.raises(ConcurrencyError):
        CALLS[name](world)
    assert take(world.opt.jit_step()[1]) == t.CONCURRENT
    world.opt._tables.counters[t.BUSY] = 0
    assert world() == before
    assert not world.path.exists()
    CALLS[name](world)


def test_what_is_read_during_steps_is_of_one_step(tmp_path, counted):
    """While compiled code steps: copies, files and states of one moment, or errors."""
    params, opt = model()
    _, state = opt.jit_step()
    moments = [bits(params, opt)]
    for _ in range(300):
        take(state)
        moments.append(bits(params, opt))
    params, opt = model()
    _, state = opt.jit_step()
    found, refused, going = [], [], [True]

    def step():
        for _ in range(300):
            take(state)
            time.sleep(2e-5)
        going[0] = False

    def copied():
        twin = copy.deepcopy(opt)
        return bits(twin._buffer, twin)

    def filed():
        nb.save(tmp_path / "file", params, opt)
        others, twin = model()
        nb.restore(tmp_path / "file", others, twin)
        return bits(others, twin)

    def read():
        while going[0]:
            for look in (copied, filed):
                try:
                    found.append(look())
                except ConcurrencyError:
                    refused.append(look)

    run_together([step, read])
    assert set(found) <= set(moments)
    assert found or refused
    assert bits(params, opt) == moments[-1]
    counted("reads beside steps", len(found) + len(refused))


def test_parts_are_held_still_for_one_call_at_a_time():
    """Else the second would take the mark of the first for the policy, and leave it behind."""
    params, opt = model()
    opt.compile()
    run, refused = opt._run, []

    def meddle():
        with pytest.raises(ConcurrencyError) as caught:
            opt.minimize(no_grad_set=["b"])
        refused.append(caught)

    def late():
        opt._run = run
        run_together([meddle])
        return run()

    opt._run = late
    a, b = params["a"].numpy(), params["b"].numpy()
    opt.minimize(no_grad_set=["a"])
    assert refused
    assert (params["a"].value == a).all()
    assert (params["b"].value != b).all()
    assert params["a"].trainable
    assert params["b"].trainable


@pytest.mark.skipif(getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this Python has a GIL")
def test_one_optimizer_in_many_threads_without_a_gil():
    params, opt = model()
    grads = {name: p.grad.copy() for name, p in params.items()}
    taken = []

    def work():
        for _ in range(400):
            try:
                opt.step(grads)
            except ConcurrencyError:
                continue
            taken.append(1)

    run_together([work] * 8)
    others, twin = model()
    for _ in taken:
        twin.step()
    assert bits(params, opt) == bits(others, twin)


# --- other processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@forks
def test_worker_processes(method):
    """Optimizer and buffer go there together, step, and come back with the bits of a run at home."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    pairs, home = [model(seed, LARGE) for seed in range(2)], [model(seed, LARGE) for seed in range(2)]
    for _, opt in (*pairs, *home):
        opt.step()
    with multiprocessing.get_context(method).Pool(2 if method == "fork" else 1) as pool:
        back = pool.map_async(go_on, pairs).get(120)
        expected = [go_on(pair)[2] for pair in home]
        assert [there for _, _, there in back] == expected
        assert [bits(params, opt) for params, opt, _ in back] == expected
        assert pool.map_async(trained, [7]).get(120) == [trained(7)]
    for (params, opt, _), pair in zip(back, home, strict=True):
        assert opt._buffer is params
        assert go_on((params, opt))[2] == go_on(pair)[2]


def test_workers_of_joblib():
    joblib = pytest.importorskip("joblib")
    from joblib.externals.loky import get_reusable_executor

    pairs = [model(seed) for seed in range(3)]
    try:
        back = joblib.Parallel(n_jobs=2, backend="loky", timeout=120)(
            joblib.delayed(go_on)(pair) for pair in pairs
        )
    finally:
        get_reusable_executor().shutdown(wait=True)
    expected = [go_on(pair)[2] for pair in pairs]
    assert [bits(params, opt) for params, opt, _ in back] == expected


LAYER = """
import threading
import numba
import numpy as np
import nbopt as nb
from tests.processes import in_child
from tests.workers import LARGE, bits, go_on, loop, model, trained
from multiprocessing import get_context

@numba.njit(parallel=True)
def own(values):
    total = 0.0
    for i in numba.prange(values.size):
        total += values[i]
    return total

alone = trained(0)

params, opt = model(1, LARGE)
expected = go_on(model(1, LARGE), 40)[2]
for _ in range(40):
    opt.step()
    assert own(np.ones(100_000)) == 100_000
print(numba.threading_layer(), bits(params, opt) == expected)

# Forks while other threads are in steps, from Python and in compiled code.
going = [True]
busy = [model(seed, LARGE)[1] for seed in range(3)]
_, state = busy[2].jit_step()
loop(state, 1)

def from_python(opt):
    while going[0]:
        opt.step()

def compiled():
    while going[0]:
        loop(state, 50)

def child():
    for opt in busy:
        opt.step()
    return loop(state, 2) == 0 and trained(0) == alone and nb.norm(np.ones(4)) == 2.0

works = [lambda: from_python(busy[0]), lambda: from_python(busy[1]), compiled]
threads = [threading.Thread(target=work, daemon=True) for work in works]
for thread in threads:
    thread.start()
for _ in range(FORKS):
    assert in_child(child)
with get_context("fork").Pool(2) as pool:
    print("pool", pool.map_async(trained, [0, 0]).get(120) == [alone] * 2)
going[0] = False
for thread in threads:
    thread.join()
print("parent", trained(0) == alone)
"""


@forks
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
@pytest.mark.parametrize("number", [10, pytest.param(200, marks=pytest.mark.slow)], ids=["some", "many"])
def test_forks_under_every_layer(layer, number, counted):
    """Beside a parallel function of the user's, and while other threads step."""
    code = LAYER.replace("FORKS", str(number))
    try:
        printed = python(
            *("-W", "ignore::DeprecationWarning", "-X", "faulthandler", "-c", code),
            **{"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"},
        )
    except AssertionError as error:
        if "No threading layer could be loaded" in str(error):
            pytest.skip(f"this machine has no {layer} layer")
        raise
    assert printed.splitlines() == [f"{layer} True", "pool True", "parent True"]
    counted("forks", number)


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals between processes")
@pytest.mark.parametrize("number", [20, pytest.param(1000, marks=pytest.mark.slow)], ids=["some", "many"])
def test_interrupts_leave_nothing_half_done(number, counted):
    """At random moments of each kind of work; `tests.workers` says what is looked at after each."""
    rng = random.Random(0)
    command = [sys.executable, "-m", "tests.workers", str(number)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        lines = 0
        for _ in process.stdout:
            lines += 1
            time.sleep(rng.uniform(0, 3e-3))
            process.send_signal(signal.SIGINT)
        problem = process.stderr.read()
    assert process.returncode == 0, problem
    assert lines == number * len(INTERRUPTED)
    counted("interrupts", lines)
