"""One model with every policy: no thread, layer, twin, packing, alignment or creation order changes a bit.

Run as a script, it prints the layer, the hash of the serial twin, and one hash for each number of threads.
"""

import functools
import hashlib
import sys

import numba
import numpy as np
import pytest

import nbopt as nb
from nbopt import layout
from nbopt.kernels.cpu import run
from tests.kernels import python

STEPS = 5
THREADS = [1, 2, 3, 4]
ALWAYS, NEVER = 0, 2**62  # values of PARALLEL_FROM

# Awkward sizes: one element, around lanes, blocks and row blocks, none a multiple of anything.
PLAIN = {
    **{"one": (1,), "lanes": (127,), "row": (129,), "cube": (3, 5, 7), "none": (0, 3)},
    **{"block": (4096,), "over": (4097,), "large": (211, 331), "frozen": (77,), "absent": (4099,)},
    **{"unclipped": (513,), "valued": (2, 1031), "normed_alone": (1009,), "sparse": (9001,)},
}
NORMED = {
    **{"dim0": ((37, 211), 0), "dim1": ((523, 41), 1), "dim1_inner": ((11, 13, 17), 1)},
    **{"dim_last": ((5, 7, 601), 2), "whole": ((9001,), None), "whole_matrix": ((67, 71), None)},
    **{"one_slice": ((1, 333), 0), "frozen_direction": ((6, 19), 0), "absent_normed": ((8, 9), 1)},
}
ATTRS = {
    "one": nb.ParamAttr(learning_rate=2.0),
    "lanes": nb.ParamAttr(regularizer=nb.regularizer.L1Decay(0.01)),
    "row": nb.ParamAttr(regularizer=nb.regularizer.L2Decay(0.0)),
    "frozen": nb.ParamAttr(trainable=False),
    "unclipped": nb.ParamAttr(need_clip=False),
    **{name: nb.WeightNormParamAttr(dim=dim) for name, (_, dim) in NORMED.items()},
}
GROUPS = [
    ["one", "large", "dim0", "absent", "whole", "unclipped", "none", "dim_last"],  # the clip of the optimizer
    ["block", "frozen", "dim1", "sparse", "absent_normed"],  # the same, another policy
    ["valued", "dim1_inner", "cube"],
    ["normed_alone", "whole_matrix", "over"],
    ["lanes", "row", "one_slice", "frozen_direction"],
]


@functools.cache
def arrays(step):
    """Values (step 0) or gradients by name, alike in every process."""
    shapes = PLAIN | {name: shape for name, (shape, _) in NORMED.items()}
    rng = np.random.default_rng(step)
    found = {n: rng.standard_normal(s) * np.exp2(rng.uniform(-9, 4, s)) for n, s in shapes.items()}
    if step:
        found["sparse"] *= rng.random(PLAIN["sparse"]) < 0.01
        found["absent"] = found["absent_normed"] = None
    return found


def play(dtype="float32", names=None, exponents=None):
    """Take the steps; return a hash of every bit of parameters and state.

    `names` orders or chooses the parameters; `exponents` says by name which values and gradients to multiply
    by a power of two.
    """
    names = names or list(arrays(0))

    def drawn(step):
        found, powers = arrays(step), exponents or {}
        return {n: None if found[n] is None else np.ldexp(found[n], powers.get(n, 0)) for n in names}

    attrs = {n: attr for n, attr in ATTRS.items() if n in names}
    params = nb.ParameterBuffer.from_arrays(drawn(0), attrs=attrs, dtype=dtype)
    if "frozen_direction" in names:
        params["frozen_direction"].weight_v.trainable = False
    policies = [
        {},
        {"learning_rate": 0.5, "weight_decay": 0.01, "use_nesterov": True, "rescale_grad": 0.3},
        {"grad_clip": nb.ClipGradByValue(0.5, -0.25), "weight_decay": nb.regularizer.L1Decay(1e-3)},
        {"grad_clip": nb.ClipGradByNorm(2.0), "momentum": 0.5},
        {"grad_clip": None},
    ]
    groups = [
        {"params": [params[n] for n in names if n in group], **policy}
        for group, policy in zip(GROUPS, policies, strict=True)
    ]
    clip = nb.ClipGradByGlobalNorm(1.0)
    opt = nb.optimizer.Momentum(0.05, 0.9, groups, weight_decay=1e-3, grad_clip=clip)
    for step in range(1, STEPS + 1):
        opt.step(drawn(step))
    assert all(np.isfinite(a).all() for a in params.numpy().values())  # a NaN hides every difference
    digest = hashlib.sha256(params.fingerprint().encode())
    digest.update(repr((opt.grad_norm, sorted(opt.clip_coefficients.items()))).encode())
    for key, value in sorted(opt.state_dict().items()):
        digest.update(repr((key, value if np.isscalar(value) else value.shape)).encode())
        digest.update(np.asarray(value).tobytes() if not np.isscalar(value) else b"")
    return digest.hexdigest()[:16]


@pytest.fixture(scope="module")
def serial():
    """The hash of the serial twin, by dtype."""

    @functools.cache
    def played(dtype):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "PARALLEL_FROM", NEVER)
            return play(dtype)

    return played


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


DTYPES = ["float32", pytest.param("float64", marks=pytest.mark.slow)]


def test_the_model_is_what_it_says():
    """It runs the parallel twin by itself, and what is frozen or absent stays."""
    assert sum(a.size for a in arrays(0).values()) > run.PARALLEL_FROM
    assert sorted(arrays(0)) == sorted(name for group in GROUPS for name in group)
    params = nb.ParameterBuffer.from_arrays(arrays(0), attrs=ATTRS, dtype="float32")
    before = params.numpy()
    params.set_grads(arrays(1))
    opt = nb.optimizer.Momentum(0.05, parameters=params)
    opt.step()
    moved = {n for n, p in params.items() if p.numpy().tobytes() != before[n].tobytes()}
    assert moved == set(before) - {"frozen", "absent", "absent_normed", "none"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_twins_agree(dtype, serial, monkeypatch):
    monkeypatch.setattr(run, "PARALLEL_FROM", ALWAYS)
    assert play(dtype) == serial(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", range(1, numba.config.NUMBA_NUM_THREADS + 1))
def test_threads_change_no_bit(count, dtype, serial, threads):
    threads(count)
    assert play(dtype) == serial(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_creation_order_changes_no_bit(seed, dtype, serial):
    order = [str(n) for n in np.random.default_rng(seed).permutation(list(arrays(0)))]
    assert order != list(arrays(0))
    assert play(dtype, order) == serial(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alignment", [8, 16, 1024])
def test_packing_and_alignment_change_no_bit(alignment, dtype, serial, monkeypatch):
    """Parameters one after another, on no boundary of a vector or cache line, or far apart."""
    usual = nb.ParameterBuffer.from_arrays(arrays(0), attrs=ATTRS, dtype=dtype).slices
    monkeypatch.setattr(layout, "ALIGNMENT", alignment)
    assert nb.ParameterBuffer.from_arrays(arrays(0), attrs=ATTRS, dtype=dtype).slices != usual
    assert play(dtype) == serial(dtype)


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_layers_and_more_threads_than_cores_change_no_bit(layer, serial):
    settings = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": str(max(THREADS))}
    try:
        printed = python("-m", "tests.kernels.test_bits", **settings).split()
    except AssertionError as error:
        if "No threading layer could be loaded" in str(error):
            pytest.skip(f"this machine has no {layer} layer")
        raise
    assert printed == [layer, *[serial("float32")] * (1 + len(THREADS))]


def main() -> None:
    run.PARALLEL_FROM = NEVER
    hashes = [play()]
    run.PARALLEL_FROM = ALWAYS
    for count in THREADS:
        numba.set_num_threads(count)
        hashes.append(play())
    sys.stdout.write("\n".join([numba.threading_layer(), *hashes]))


if __name__ == "__main__":
    main()
