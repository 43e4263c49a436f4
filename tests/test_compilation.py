"""What compiles, and what never does: policies, sizes and names are data."""

import contextlib
import itertools

import numba
import numpy as np
import pytest
from numba.core import event

import nbopt as nb
from nbopt.kernels.cpu import arrays, compile_array


@contextlib.contextmanager
def compilations():
    """Collects the names of the functions that Numba compiles."""
    names = []

    class Listener(event.Listener):
        def on_start(self, event):
            names.append(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event):
            pass

    with event.install_listener("numba:compile", Listener()):
        yield names


def make(sizes=(3, 40), names="abcdefgh", count=4, dtype="float32", parameters=None, **options):
    """A small model of plain parameters, after one step."""
    rng = np.random.default_rng(0)
    values = {
        n: rng.standard_normal(size) for n, size in zip(names[:count], itertools.cycle(sizes), strict=False)
    }
    params = nb.ParameterBuffer.from_arrays(values, dtype=dtype)
    opt = nb.optimizer.Momentum(0.1, parameters=parameters(params) if parameters else params, **options)
    step(params, opt)
    return params, opt


def step(params, opt):
    opt.step({n: np.full(p.shape, 0.5) for n, p in params.items()})


def test_the_listener_hears_a_compilation():
    with compilations() as names:
        numba.njit(lambda x: x + 1)(1.0)
    assert names == ["<lambda>"]


# --- edits ----------------------------------------------------------------------------------------


def edit(key, value):
    return lambda params, opt: opt.param_groups[0].__setitem__(key, value)


def attribute(name, value):
    return lambda params, opt: setattr(params["a"], name, value)


EDITS = {
    "rate": lambda params, opt: opt.set_lr(0.03),
    "group-rate": edit("learning_rate", 0.5),
    "momentum": edit("momentum", 0.5),
    "nesterov": edit("use_nesterov", True),
    "rescale": edit("rescale_grad", 0.25),
    "decay": edit("weight_decay", 0.1),
    "L1": edit("weight_decay", nb.regularizer.L1Decay(0.1)),
    "no-decay": edit("weight_decay", None),
    "no-clip": edit("grad_clip", None),
    "limit": edit("grad_clip", nb.ClipGradByGlobalNorm(0.01)),
    "clip-by-norm": edit("grad_clip", nb.ClipGradByNorm(0.01)),
    "clip-by-value": edit("grad_clip", nb.ClipGradByValue(0.01)),
    "freeze": lambda params, opt: params.freeze("a"),
    "unfreeze": lambda params, opt: (params.freeze("*"), step(params, opt), params.unfreeze("*")),
    "parameter-rate": attribute("learning_rate", 3.0),
    "parameter-L1": attribute("regularizer", nb.regularizer.L1Decay(0.1)),
    "parameter-L2": attribute("regularizer", nb.regularizer.L2Decay(0.1)),
    "need-clip": attribute("need_clip", False),
    "stop-gradient": attribute("stop_gradient", True),
    "value": attribute("value", np.ones(3)),
    "absent": lambda params, opt: params["a"].clear_grad(set_to_zero=False),
    "group": lambda params, opt: opt.add_param_group({"params": params["d"], "momentum": 0.1}),
    "state": lambda params, opt: opt.set_state_dict(opt.state_dict()),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_compiles_nothing(name):
    clip = nb.ClipGradByGlobalNorm(1.0)
    params, opt = make(parameters=lambda p: list(p.values())[:3], grad_clip=clip, weight_decay=0.01)
    before = params.fingerprint()
    with compilations() as names:
        EDITS[name](params, opt)
        step(params, opt)
    assert names == []
    assert opt.step_count >= 2
    assert params.fingerprint() != before


# --- other models ---------------------------------------------------------------------------------

MODELS = {
    "sizes": {"sizes": (1, 5000, 7)},
    "names": {"names": ["fc.weight", "fc.bias", "x", "y"]},
    "count": {"count": 8},
    "nesterov": {"use_nesterov": True, "momentum": 0.5},
    "nonfinite-skip": {"nonfinite": "skip"},
    "nonfinite-propagate": {"nonfinite": "propagate"},
    "clips": {"grad_clip": nb.ClipGradByValue(1.0)},
    "groups": {
        "parameters": lambda p: [{"params": [q], "momentum": 0.1 * i} for i, q in enumerate(p.values())]
    },
    "rescale": {"rescale_grad": 0.5, "weight_decay": nb.regularizer.L1Decay(0.1)},
}


@pytest.mark.parametrize("name", MODELS)
def test_another_model_of_the_same_kind_compiles_nothing(name):
    make()
    with compilations() as names:
        _, opt = make(**MODELS[name])
    assert names == []
    assert opt.step_count == 1


def test_a_new_shape_of_weight_norm_compiles_nothing():
    def normed(*shapes):
        for shape, dim in shapes:
            attrs = {"w": nb.WeightNormParamAttr(dim=dim)}
            params = nb.ParameterBuffer.from_arrays({"w": np.ones(shape)}, attrs=attrs, dtype="float32")
            opt = nb.optimizer.Momentum(0.1, parameters=params)
            step(params, opt)
            assert params["w"].weight_v.grad.shape == shape

    normed(((2, 3), 0), ((3, 2), None))
    with compilations() as names:
        normed(((300, 5), 1), ((2, 3, 4), 1), ((7,), None), ((9, 9), 0), ((1, 600), 0))
    assert names == []


@pytest.mark.parametrize(
    ("call", "template"),
    [
        pytest.param(nb.norm, arrays.array_squares, id="norm"),
        pytest.param(lambda x: nb.norm(x, 1), arrays.slice_sums, id="slices"),
        pytest.param(lambda x: nb.ClipGradByNorm(0.1)({"x": x}), arrays.array_squares, id="clip"),
    ],
)
def test_the_form_of_an_array_makes_no_new_code(call, template):
    """Strides, byte order and flags of what a user holds are no reason to wait for a compiler."""
    x = np.ones((4, 6))
    frozen = x.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    fortran, swapped = np.asfortranarray(x), x.astype(x.dtype.newbyteorder())
    for form in (x, x.T, x[::2], x[:, :1], fortran, swapped, x.astype(int), frozen, unaligned):
        call(form)
    assert len(compile_array(template, x.dtype).signatures) == 1  # of all in this process
