"""What is loaded into optimizers, schedules, averages and parameters."""

import math

import numpy as np
from numpy.testing import assert_allclose

import nbopt as nb
from nbopt.errors import CheckpointError, HyperparameterError, ParameterError, StateDictError
from tests.hostile import F32, F64, buffer, pair, refused, same
from tests.optimizer import frozen_bytes

lr = nb.optimizer.lr
GONE = object()


def run(**options):
    """Parameters a and b, and an optimizer that has taken a step."""
    params = buffer(a=[0.0, 0.0], b=[0.0, 0.0])
    opt = nb.optimizer.Momentum(0.1, 0.9, params, **options)
    opt.step({"a": [1.0, 1.0], "b": [2.0, 2.0]})
    return params, opt


def bad_state(key, value, *words):
    """Refused by name, and nothing is loaded, the entries that fit included."""
    params, opt = run()
    before = frozen_bytes(opt.state_dict()), params.fingerprint()
    state = opt.state_dict() | {"b.velocity": F32([7, 7]), "step_count": 9}
    if value is GONE:
        del state[key]
    else:
        state[key] = value
    refused(lambda: opt.set_state_dict(state), StateDictError, "nothing was changed", key, *words)
    assert (frozen_bytes(opt.state_dict()), params.fingerprint()) == before


# --- optimizers -----------------------------------------------------------------------------------


def one_entry_missing():
    bad_state("a.velocity", GONE, "missing: a.velocity")
    bad_state("a.step", GONE, "missing: a.step")


def all_missing():
    _, opt = run()
    every = ("a.velocity", "a.step", "b.velocity", "b.step", "rule", "learning_rate", "step_count")
    refused(lambda: opt.set_state_dict({}), StateDictError, "missing", *every)


def rate_missing():
    bad_state("learning_rate", GONE, "missing: learning_rate")


def unknown_parameter():
    bad_state("c.velocity", F32([0, 0]), "unexpected: c.velocity")


def unknown_key():
    bad_state("momentun", 0.5, "unexpected: momentun")


def velocity_of_another_shape():
    bad_state("a.velocity", np.zeros(7, F32), "(7,)", "(2,)")


def velocity_without_axes():
    bad_state("a.velocity", F32(0), "shape ()", "(2,)")
    bad_state("a.velocity", F32([0]), "(1,)", "(2,)")


def velocity_of_integers():
    bad_state("a.velocity", np.array([1, 1]), "int64", "float32")


def velocity_a_text():
    bad_state("a.velocity", "garbage", "float32")


def velocity_of_float64():
    bad_state("a.velocity", np.zeros(2), "float64", "float32")


def velocity_not_finite():
    """Refused, but where non-finite gradients propagate too."""
    bad_state("a.velocity", F32([math.nan, 0]), "NaN or Inf")
    bad_state("a.velocity", F32([0, math.inf]), "NaN or Inf")
    _, opt = run(nonfinite="propagate")
    opt.set_state_dict(opt.state_dict() | {"a.velocity": F32([math.nan, 0])})
    assert math.isnan(opt.state_dict()["a.velocity"][0])


def rate_negative():
    bad_state("learning_rate", -9.0, ">= 0", "-9")


def rate_a_text():
    bad_state("learning_rate", "abc", "'abc'")


def momentum_not_finite():
    """Hyper-parameters are the program's: they are in no state, and checked where they are set."""
    bad_state("momentum", math.nan, "unexpected: momentum")
    _, opt = run()
    refused(lambda: opt.param_groups[0].__setitem__("momentum", math.nan), HyperparameterError, "momentum")


def another_order():
    params, opt = run()
    again = buffer(b=[0.0, 0.0], a=[0.0, 0.0])
    twin = nb.optimizer.Momentum(0.1, 0.9, [again["b"], again["a"]])
    twin.set_state_dict(dict(reversed(opt.state_dict().items())))
    again.from_vector(np.concatenate([params["b"].value, params["a"].value]))
    for optimizer in (opt, twin):
        optimizer.step({"a": [1.0, 0.0], "b": [0.0, 1.0]})
    for name in ("a", "b"):
        same(again[name].value, params[name].value)
    renamed = nb.optimizer.Momentum(0.1, 0.9, buffer(x=[0.0, 0.0], y=[0.0, 0.0]))
    refused(lambda: renamed.set_state_dict(opt.state_dict()), StateDictError, "missing: x.", "unexpected: a.")


def another_number_of_parameters():
    _, opt = run()
    for names in ("a", "abc"):
        other = nb.optimizer.Momentum(0.1, 0.9, buffer(**{name: [0.0, 0.0] for name in names}))
        refused(lambda o=other: o.set_state_dict(opt.state_dict()), StateDictError, "velocity")


def another_kind():
    params, opt = run()
    for state in (
        nb.optimizer.Adam(0.1, parameters=params).state_dict(),
        nb.optimizer.SGD(0.1, params).state_dict(),
    ):
        refused(lambda s=state: opt.set_state_dict(s), StateDictError, "belongs to the rule", "'momentum'")


def edited_snapshot():
    _, opt = run()
    state = opt.state_dict()
    state["a.velocity"][:] = 99
    state["learning_rate"] = 99
    same(opt.state_dict()["a.velocity"], F32([1, 1]))
    assert opt.get_lr() == 0.1
    opt.set_state_dict(opt.state_dict() | {"a.velocity": state["a.velocity"]})
    state["a.velocity"][:] = 0  # what was loaded is a copy too
    same(opt.state_dict()["a.velocity"], F32([99, 99]))


def snapshot_before_a_step():
    params, opt = run()
    state, values = opt.state_dict(), params.numpy()
    kept = frozen_bytes(state)
    opt.step({"a": [1.0, 1.0], "b": [1.0, 1.0]})
    assert frozen_bytes(state) == kept
    same(values["a"], -F32(0.1) * F32([1, 1]))


# --- schedules, parameters and averages -----------------------------------------------------------


def junk_into_a_schedule():
    schedule = lr.StepDecay(0.1, 3)
    before = schedule.state_dict()
    refused(lambda: schedule.set_state_dict({"hello": 1}), StateDictError, "missing: last_epoch", "hello")
    assert schedule.state_dict() == before
    assert schedule.get_lr() == 0.1


def weights_that_do_not_fit(tmp_path):
    nb.save(tmp_path / "run", buffer(weight=np.ones((3, 3)), extra=[1.0], bias=[5.0]))
    params = buffer(weight=np.zeros((2, 2)), bias=[0.0])
    words = "weight", "(3, 3)", "(2, 2)", "extra", "nothing was changed"
    refused(lambda: nb.restore(tmp_path / "run", params), CheckpointError, *words)
    same(params["bias"].value, F32([0]))


def too_large_for_the_dtype():
    params = pair()
    for call in (
        lambda: params["w"].set_value(F64([1e300, 1])),
        lambda: params.from_vector(F64([1e300, 1])),
        lambda: params.set_grads({"w": F64([1e300, 1])}),
    ):
        refused(call, ParameterError, "1e+300", "float32")
    same(params["w"].value, F32([1, 2]))


def complex_numbers():
    params = pair()
    refused(lambda: params["w"].set_value([1j, 1]), TypeError, "'w'", "complex128")
    bad_state("a.velocity", np.zeros(2, np.complex64), "complex64")
    same(params["w"].value, F32([1, 2]))


def average_of_a_bad_step():
    """A refused step moves nothing, so no average sees what was not finite."""
    params = pair()
    opt = nb.optimizer.SGD(0.5, params, nonfinite="skip")
    mean = nb.ModelAverage(1.0, params, min_average_window=100, max_average_window=100)
    moving = nb.ExponentialMovingAverage(0.5, params)
    for grad in ([1.0, 1.0], [math.nan, 1.0], [1.0, 1.0]):
        opt.step({"w": grad})
        mean.step()
        moving.update()
    assert opt.steps_skipped == 1
    with mean.apply():
        same(params["w"].value, F32([0.25, 1.25]))  # of two steps
    with moving.apply():
        assert_allclose(params["w"].value, np.array([0.1875, 1.0625]) / 0.875, rtol=1e-6)


def schedule_gives_nan():
    schedule = lr.LambdaDecay(0.1, lambda step: math.nan if step == 2 else 1.0)
    opt = nb.optimizer.SGD(schedule, pair())
    schedule.step()
    refused(schedule.step, HyperparameterError, "lr_lambda(2)", "nan")
    assert opt.get_lr() == 0.1
    assert schedule.last_epoch == 1


def periods_of_nothing():
    for call, word in (
        (lambda: lr.StepDecay(0.1, 0), "step_size"),
        (lambda: lr.StepDecay(0.1, -3), "step_size"),
        (lambda: lr.CosineAnnealingDecay(0.1, 0), "T_max"),
        (lambda: lr.PolynomialDecay(0.1, 0), "decay_steps"),
        (lambda: lr.NoamDecay(0, 10), "d_model"),
        (lambda: lr.NoamDecay(10, 0), "warmup_steps"),
    ):
        refused(call, HyperparameterError, word)


def cosine_of_no_steps():
    refused(lambda: lr.CosineAnnealingDecay(0.1, 0), HyperparameterError, "T_max", ">= 1")
    refused(lambda: lr.CosineAnnealingWarmRestarts(0.1, 0), HyperparameterError, "T_0", ">= 1")


def resumed_in_the_middle():
    def make_run():
        params = buffer(a=[0.5, -1.0], b=[2.0])
        schedule = lr.CosineAnnealingDecay(0.1, 40)
        opt = nb.optimizer.Momentum(schedule, 0.9, params, grad_clip=nb.ClipGradByGlobalNorm(1.0))

        def step(number):
            opt.step({name: np.sin(number) * param.value + 0.1 for name, param in params.items()})
            schedule.step()

        return step, (params, opt, schedule)

    nb.testing.assert_resume_exact(make_run, at_step=20, further=20)


def cosine_after_60000_steps():
    walked, jumped = lr.CosineAnnealingDecay(0.1, 1000), lr.CosineAnnealingDecay(0.1, 1000)
    for step in range(1, 60_000):
        walked.step()
        assert walked.last_lr >= 0
        if step % 997 == 0:
            jumped.step(step)
            assert walked.last_lr == jumped.last_lr
            assert_allclose(walked.last_lr, 0.05 * (1 + math.cos(math.pi * step / 1000)), rtol=1e-9)


def averages_in_float32():
    params = buffer(w=[1.0])
    moving = nb.ExponentialMovingAverage(0.999, params)
    mean = nb.ModelAverage(1.0, params, min_average_window=10_000, max_average_window=10_000)
    for value, count in ((1.0, 1000), (2.0, 1000)):
        params["w"].value = [value]
        for _ in range(count):
            mean.step()
    with mean.apply():
        same(params["w"].value, F32([1.5]))
    expected = weight = 0.0
    for value, count in ((1.0, 1000), (2.0, 5000)):
        params["w"].value = [value]
        for _ in range(count):
            moving.update()
            expected = 0.999 * expected + 0.001 * value
            weight = 0.999 * weight + 0.001
    with moving.apply():
        assert_allclose(params["w"].value, [expected / weight], rtol=1e-5)
        assert params["w"].value > 1.99


def schedules_out_of_range():
    for call, word in (
        (lambda: lr.ExponentialDecay(0.1, math.nan), "gamma"),
        (lambda: lr.ExponentialDecay(0.1, -2), "gamma"),
        (lambda: lr.MultiStepDecay(0.1, [5, 2]), "milestones"),
        (lambda: lr.LinearLR(0.1, 10, start_factor=2.0), "start_factor"),
        (lambda: lr.LambdaDecay(0.1, lambda step: -1.0), "LambdaDecay"),
    ):
        refused(call, HyperparameterError, word)
