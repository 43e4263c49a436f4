"""Edits of groups while compiled code steps in another thread: a step sees all of an edit, or nothing."""

import threading

import numba
import numpy as np

import nbopt as nb

MEMBERS, STEPS = 400, 40_000


@numba.njit(nogil=True)
def run(step, state, w, dw, moved, stop):
    """Step until told to stop; keep how far each step moved."""
    count = 0
    while count < moved.size and stop[0] == 0:
        w[:] = 0.0
        dw[:] = 1.0
        step(state)
        moved[count] = np.sqrt((w * w).sum())
        count += 1
    return count


def test_a_step_sees_all_of_an_edit_or_nothing():
    params = nb.ParameterBuffer.from_arrays({f"p{i}": np.zeros(3) for i in range(MEMBERS)})
    names = list(params)
    halves = [{"params": [params[n] for n in names[half::2]]} for half in (0, 1)]
    opt = nb.optimizer.SGD(1.0, halves)
    clip = nb.ClipGradByGlobalNorm(1.0)
    step, state = opt.jit_step()
    moved, stop = np.zeros(STEPS), np.zeros(1, np.int64)
    run(step, state, params.flat, params.flat_grad, moved, np.ones(1, np.int64))
    thread = threading.Thread(target=lambda: run(step, state, params.flat, params.flat_grad, moved, stop))
    thread.start()
    while thread.is_alive():
        # Each assignment is an edit of its own: no clip, one half clipped, both, the other half.
        for value in (clip, None):
            for group in opt.param_groups:
                group["grad_clip"] = value
    thread.join()
    plain, half = np.sqrt(3.0 * MEMBERS), np.sqrt(1.0 + 1.5 * MEMBERS)
    legal = np.array([1.0, half, plain])
    distance = np.abs(moved[:, None] - legal).min(axis=1)
    assert distance.max() < 1e-3
    seen = {int(np.abs(legal - value).argmin()) for value in moved}
    assert len(seen) == len(legal)


def test_an_edit_is_seen_by_the_next_step_of_either_kind():
    params = nb.ParameterBuffer.from_arrays({"w": np.zeros(4)})
    opt = nb.optimizer.SGD(1.0, params)
    step, state = opt.jit_step()
    for kind in (opt.step, lambda: step(state)):
        for limit in (0.5, None, 0.25):
            opt.param_groups[0]["grad_clip"] = limit and nb.ClipGradByNorm(limit)
            params["w"].value, params["w"].grad = np.zeros(4), np.ones(4)
            kind()
            assert abs(np.linalg.norm(params["w"].value) - (limit or 2.0)) < 1e-6
    opt.param_groups[0]["learning_rate"] = 0.5
    assert opt.explain("w")[0].rate == 0.5
