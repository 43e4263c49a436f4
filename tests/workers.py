"""Work that other threads and processes do, and a program that bears Ctrl-C."""

import contextlib
import faulthandler
import os
import signal
import sys

import numba
import numpy as np

import nbopt as nb

SMALL, LARGE = 300, 100_000  # below and above the size from which a step has threads
take, _ = nb.optimizer.SGD(0.1, nb.ParameterBuffer.from_arrays({"a": [1.0]})).jit_step()


@numba.njit(nogil=True)
def loop(state, steps):
    """Steps in compiled code; the sum of what they returned."""
    total = 0
    for _ in range(steps):
        total += take(state)
    return total


def model(seed=0, size=SMALL):
    """Two parameters, their gradients, and a Momentum that clips."""
    rng = np.random.default_rng(seed)
    values = {"a": rng.standard_normal(size), "b": rng.standard_normal(20)}
    params = nb.ParameterBuffer.from_arrays(values, dtype="float32")
    opt = nb.optimizer.Momentum(0.01, parameters=params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    params.set_grads({name: rng.standard_normal(p.shape) for name, p in params.items()})
    return params, opt


def bits(params, opt):
    """Equal for equal bits of all that a step moves and counts."""
    state = opt.state_dict()
    return params.fingerprint(), *(np.asarray(state[key]).tobytes() for key in sorted(state))


def go_on(pair, steps=5):
    """Step what came from another process, and send it back."""
    params, opt = pair
    for _ in range(steps):
        opt.step()
    return params, opt, bits(params, opt)


def trained(seed):
    """What some steps come to, of a small and a large model."""
    return [go_on(model(seed, size))[2] for size in (SMALL, LARGE)]


# --- Ctrl-C ---------------------------------------------------------------------------------------


def _stepping(work, size=SMALL):
    """Repeat what steps; a twin that takes as many steps has the same bits."""
    (params, opt), (others, twin) = model(size=size), model(size=size)
    do, again = work(params, opt), work(others, twin)

    def check():
        while twin.step_count < opt.step_count:
            again()
        assert bits(params, opt) == bits(others, twin)
        assert all(p.trainable for p in params.values())

    return do, check


def _by_step(params, opt):
    return opt.step


def _by_gradients(params, opt):
    grads = {name: p.grad.copy() for name, p in params.items()}
    return lambda: opt.step(grads)


def _by_part(params, opt):
    return lambda: opt.minimize(no_grad_set=["a"])


def _by_loop(params, opt):
    _, state = opt.jit_step()
    return lambda: loop(state, 20)


def _averaging():
    params, opt = model()
    average, twin = (nb.ModelAverage(0.5, params, 5, 50) for _ in range(2))

    def check():
        opt.step()  # nothing holds it
        while twin.state_dict()["a.num_updates"] < average.state_dict()["a.num_updates"]:
            twin.step()
        assert repr(average.state_dict()) == repr(twin.state_dict())

    params.clear_grad(set_to_zero=False)  # so that the steps move nothing
    return average.step, check


def _applying():
    params, _ = model()
    average = nb.ModelAverage(0.5, params, 5, 50)
    average.step()
    params["a"].value += 1
    own = params.fingerprint()

    def work():
        average.apply()
        average.restore()

    def check():
        if average.is_applied:
            average.restore()
        assert params.fingerprint() == own

    return work, check


def _loading():
    params, opt = model()
    states, legal = [], []
    for _ in range(2):
        opt.step()
        states.append(opt.state_dict())
        legal.append(bits(params, opt)[1:])

    def work():
        for state in states:
            opt.set_state_dict(state)

    def check():
        assert bits(params, opt)[1:] in legal

    return work, check


def _editing():
    params, _ = model()
    opt = nb.optimizer.Momentum(1.0, 0.0, params)
    params["a"].grad = np.ones(SMALL)
    group = opt.param_groups[0]
    edits = [{"learning_rate": 1.0, "rescale_grad": 1.0}, {"learning_rate": 2.0, "rescale_grad": 4.0}]
    moves = {1.0: 1.0, 2.0: 8.0}  # 2 and 4 are those of half an edit

    def work():
        for edit in edits:
            group.update(edit)

    def check():
        params["a"].value = np.zeros(SMALL)
        opt.step()
        assert (params["a"].value == -moves[group["learning_rate"]]).all()

    return work, check


INTERRUPTED = {
    "step": lambda: _stepping(_by_step),
    "step with threads": lambda: _stepping(_by_step, LARGE),
    "step with gradients": lambda: _stepping(_by_gradients),
    "step of a part": lambda: _stepping(_by_part),
    "compiled loop": lambda: _stepping(_by_loop),
    "compiled loop with threads": lambda: _stepping(_by_loop, LARGE),
    "average": _averaging,
    "apply and restore": _applying,
    "load": _loading,
    "edit": _editing,
}


def bear_interrupts(count):
    """Do each kind of work until Ctrl-C, `count` times; say with a line when it may come."""
    for name, make in INTERRUPTED.items():
        work, check = make()
        work()
        for _ in range(count):
            faulthandler.dump_traceback_later(120, exit=True)
            with contextlib.suppress(KeyboardInterrupt):
                os.write(1, f"{name}\n".encode())
                while True:
                    work()
            try:
                check()
            except BaseException as error:
                error.add_note(f"after Ctrl-C in: {name}")
                raise


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its jobs without
    bear_interrupts(int(sys.argv[1]))
