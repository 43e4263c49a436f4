"""What a step on a device does: it launches, and nothing else; its errors wait until somebody asks."""

import copy
import threading

import pytest

import nbopt as nb
from nbopt.errors import ConcurrencyError, NonFiniteGradientError
from nbopt.kernels import tables as t
from nbopt.kernels.cuda import memory, run
from tests.cuda.played import arrays_of, picture
from tests.cuda.table import CASES, GLOBAL, Normed, momentum

NAN = float("nan")


@pytest.fixture
def launched(monkeypatch):
    """What was launched, by name."""
    names, launch = [], run.PlainLaunch.__call__

    def noted(self, stream):
        names.append(self._kernel.__name__.rpartition("_")[0])
        launch(self, stream)

    monkeypatch.setattr(run.PlainLaunch, "__call__", noted)
    return names


def model(shapes, device="cuda", groups=1, dims=None, **options):
    """Parameters, and an optimizer of them in some groups, each with a clip of its own."""
    params = nb.ParameterBuffer(device=device, seed=0)
    for name, shape in shapes.items():
        attr = Normed(dims[name]) if dims and name in dims else None
        params.create_parameter(shape, name, attr)
    names = list(shapes)
    chosen = [
        {"params": [params[name] for name in names[i::groups]], "grad_clip": GLOBAL(1.0, group_name=f"{i}")}
        for i in range(groups)
    ]
    return params, momentum(**options)(parameters=chosen)


def fill(params, value=1.0):
    for p in params.values():
        p.grad = [[value] * p.shape[-1]] * p.shape[0] if len(p.shape) == 2 else [value] * p.shape[0]


# --- launches -------------------------------------------------------------------------------------

TWO, THREE = ["reduce", "update"], ["reduce", "update", "compose"]


@pytest.mark.parametrize(
    ("shapes", "groups", "dims", "expected"),
    [
        pytest.param({"a": (3,)}, 1, {}, TWO, id="one"),
        pytest.param({f"p{i}": (i + 1,) for i in range(30)}, 1, {}, TWO, id="many"),
        pytest.param({f"p{i}": (i + 1,) for i in range(12)}, 6, {}, TWO, id="in groups"),
        pytest.param({"a": (9000,)}, 1, {}, TWO, id="long"),
        pytest.param({"w": (3, 4), "b": (3,)}, 1, {"w": 0}, TWO, id="whole slices"),
        pytest.param({"w": (3, 4), "t": (4, 3), "b": (3,)}, 3, {"w": 0, "t": 1}, THREE, id="late slices"),
    ],
)
def test_a_step_is_two_launches_or_three(shapes, groups, dims, expected, launched):
    params, opt = model(shapes, groups=groups, dims=dims)
    fill(params)
    for _ in range(2):
        launched.clear()
        opt.step()
        assert launched == expected
    assert opt.step_count == 2


def test_a_step_only_launches(launched, monkeypatch):
    """It allocates, compiles, sends and fetches nothing; looking at what it left fetches."""
    params, opt = model({"w": (3, 4), "t": (4, 3), "b": (3,)}, groups=2, dims={"w": 0, "t": 1})
    fill(params)
    opt.step()
    refused = []
    launched.clear()
    with monkeypatch.context() as patch:
        for name in ("zeros", "upload", "read", "write", "clear", "fill"):
            patch.setattr(memory.CudaMemory, name, lambda *_, name=name: refused.append(name))
        patch.setattr(run, "compile_launches", lambda *_: refused.append("compile"))
        opt.step()
    assert launched == THREE
    assert not refused
    assert opt.step_count == 2


def test_one_thread_steps_at_a_time(launched, monkeypatch):
    params, opt = model({"a": (3,)})
    fill(params)
    opt.step()
    inner, seen = run.PlainLaunch.__call__, []

    def meanwhile(self, stream):
        with pytest.raises(ConcurrencyError, match="another thread is stepping this Momentum"):
            opt.step()
        seen.append(self)
        inner(self, stream)

    monkeypatch.setattr(run.PlainLaunch, "__call__", meanwhile)
    opt.step()
    assert len(seen) == 2
    assert opt.step_count == 2


def test_two_threads_step_two_optimizers():
    """Which share nothing but the simulator, and that runs one kernel at a time."""
    many, failed = [model({"a": (40,)}) for _ in range(3)], []
    for params, _ in many:
        fill(params)

    def take(opt):
        try:
            for _ in range(3):
                opt.step()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=take, args=(opt,)) for _, opt in many[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    take(many[0][1])
    assert not failed
    first, *others = (arrays_of(params)["a"].tobytes() for params, _ in many)
    assert others == [first, first]


# --- errors ---------------------------------------------------------------------------------------

ASKED = {
    "check": lambda opt: opt.check(),
    "step_count": lambda opt: opt.step_count,
    "steps_skipped": lambda opt: opt.steps_skipped,
    "grad_norm": lambda opt: opt.grad_norm,
    "clip_coefficients": lambda opt: opt.clip_coefficients,
    "state_dict": lambda opt: opt.state_dict(),
    "explain": lambda opt: opt.explain(),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_whatever_is_asked_raises_what_a_step_found(ask, capsys):
    """Until then nothing moves any more, also where gradients are good again; and it is raised once."""
    params, opt = model({"a": (3,), "b": (2, 3)})
    fill(params)
    opt.step()
    before = arrays_of(params)
    params["b"].grad = [[1.0, 2.0, 3.0], [4.0, NAN, 6.0]]
    opt.step()
    fill(params)
    opt.step()
    assert {name: a.tobytes() for name, a in arrays_of(params).items()} == {
        name: a.tobytes() for name, a in before.items()
    }
    params["b"].grad = [[1.0, 2.0, 3.0], [4.0, NAN, 6.0]]
    with pytest.raises(NonFiniteGradientError) as caught:
        ask(opt)
    assert (caught.value.name, caught.value.index, caught.value.step) == ("b", (1, 1), 2)
    opt.check()
    fill(params)
    opt.step()
    assert (opt.step_count, opt.steps_skipped) == (2, 1)


def test_a_copy_carries_an_error_that_nobody_asked_for():
    """Its steps change nothing until it is raised, though they have no sums to refuse it by."""
    params, opt = model({"a": (3,), "w": (4, 3)}, dims={"w": 1})
    fill(params)
    params["a"].grad = [1.0, NAN, 1.0]
    opt.step()
    params, opt = copy.deepcopy((params, opt))
    before = params.fingerprint()
    fill(params)
    opt.step()
    assert params.fingerprint() == before
    with pytest.raises(NonFiniteGradientError, match="'a'"):
        opt.check()
    opt.step()
    assert params.fingerprint() != before


def test_ten_skipped_steps_are_an_error():
    params, opt = model({"a": (3,)}, nonfinite="skip")
    params["a"].grad = [1.0, NAN, 1.0]
    for _ in range(t.MAX_CONSECUTIVE):
        opt.step()
    with pytest.raises(NonFiniteGradientError, match="'a'"):
        opt.check()
    assert opt.steps_skipped == t.MAX_CONSECUTIVE


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["nesterov", "normed and plain"])
def test_a_run_may_change_its_device(name, dtype):
    """From the CPU to a GPU and back, in the middle of a run, by what `state_dict` and `numpy` give."""
    case = CASES[name]
    params, opt = case.build(dtype, "cpu")
    moving, its = case.build(dtype, "cpu")
    for step, device in enumerate(("cpu", "cuda", "cuda", "cpu"), 1):
        values, state = arrays_of(moving), its.state_dict()
        moving, its = case.build(dtype, device)
        for key, value in values.items():
            if key not in case.attrs or not isinstance(case.attrs[key], Normed):
                moving[key].value = value
        its.set_state_dict(state)
        for one in (opt, its):
            one.step(case.gradients(step, dtype))
        assert picture(moving, its) == picture(params, opt)
    assert opt.step_count == 4
