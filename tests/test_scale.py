"""Many parameters: the work of every operation grows with their number, a step stays one dispatch."""

import copy
import fnmatch
import hashlib
import pickle
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nbopt as nb
from nbopt.layout import Item, Layout
from nbopt.optimizer.lr import StepDecay

MANY = 100_000


def calls(work):
    """How many functions, of Python or of C, a piece of work calls."""
    count = 0

    def see(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def arrays(number):
    return {f"layer.{i}.weight": np.ones(3, np.float32) for i in range(number)}


def buffer(number):
    return nb.ParameterBuffer.from_arrays(arrays(number))


def momentum(params, groups=False, **options):
    taken = [{"params": p} for p in params.values()] if groups else params
    opt = nb.optimizer.Momentum(0.1, parameters=taken, grad_clip=nb.ClipGradByGlobalNorm(1.0), **options)
    opt.compile()
    return opt


def create(number):
    params = nb.ParameterBuffer(seed=0)
    for i in range(number):
        params.create_parameter([3], name=f"layer.{i}.weight")
    return params


def create_unnamed(number):
    params = nb.ParameterBuffer(seed=0)
    for _ in range(number):
        params.create_parameter([3])


def create_normed(number):
    params = nb.ParameterBuffer(seed=0)
    for i in range(number):
        params.create_parameter([3], name=f"w{i}", attr=nb.WeightNormParamAttr())
    return params.flat


def edit_groups(opt):
    for group in opt.param_groups:
        group["learning_rate"] = 2.0
        group.update(momentum=0.5, weight_decay=1e-4)


# name: what is made of a number of parameters, and what is done with it
OF_BUFFERS = {
    "seal": lambda p: p.flat,
    "create again": lambda p: [p.create_parameter([3], name=name) for name in p],
    "views": lambda p: [(q.value, q.grad) for q in p.values()],
    "numpy": lambda p: p.numpy(),
    "vectors": lambda p: p.from_vector(p.to_vector()),
    "vectors of gradients": lambda p: p.set_grads(p.to_vector("grad")),
    "set_grads": lambda p: p.set_grads(arrays(len(p))),
    "clear_grad": lambda p: p.clear_grad(set_to_zero=False),
    "fingerprint": lambda p: p.fingerprint(),
    "summary": lambda p: str(p.summary()),
    "select": lambda p: p.select("*.weight"),
    "freeze": lambda p: p.freeze("*"),
    "slices": lambda p: p.slices,
    "deepcopy": lambda p: copy.deepcopy(p),
    "pickle": lambda p: pickle.loads(pickle.dumps(p, 5)),
    "missing names": lambda p: [(f"{name}?" in p, p.get(f"{name}?")) for name in p],
    "optimizer": momentum,
    "optimizer of groups": lambda p: momentum(p, groups=True),
    "clip_grad_norm_": lambda p: nb.clip_grad_norm_(p, 1.0),
}
OF_OPTIMIZERS = {
    "step with gradients": lambda opt: opt.step(arrays(len(opt.parameters))),
    "clear_grad": lambda opt: opt.clear_grad(),
    "state_dict": lambda opt: opt.set_state_dict(opt.state_dict()),
    "deepcopy": lambda opt: copy.deepcopy(opt),
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt, 5)),
    "edits of groups": edit_groups,
    "minimize": lambda opt: opt.minimize(no_grad_set=opt.parameters[::2]),
    "explain": lambda opt: opt.explain(),
    "clip_coefficients": lambda opt: opt.clip_coefficients,
    "schedule": lambda opt: opt.set_lr_scheduler(StepDecay(0.1, step_size=2)),
    "average": lambda opt: nb.ModelAverage(0.15, opt._buffer).state_dict(),
}


def assert_linear(work, counted):
    """Compare the calls at three sizes: twice the parameters, at most twice as many more."""
    work(10)()  # what is imported and compiled once
    least, middle, most = (calls(work(number)) for number in (100, 200, 400))
    assert most - middle <= 2.1 * (middle - least) + 20, (least, middle, most)
    counted("operations whose work grows as the number of parameters")


@pytest.mark.parametrize("make", [create, create_unnamed, create_normed])
def test_parameters_are_created_in_linear_time(make, counted):
    assert_linear(lambda number: lambda: make(number), counted)


def test_arrays_and_attributes_by_name_are_taken_in_linear_time(counted):
    def work(number):
        values = arrays(number)
        attrs = dict.fromkeys(values, nb.ParamAttr(need_clip=False))
        return lambda: nb.ParameterBuffer.from_arrays(values, attrs)

    assert_linear(work, counted)


@pytest.mark.parametrize("use", OF_BUFFERS.values(), ids=OF_BUFFERS)
def test_buffers_are_used_in_linear_time(use, counted):
    assert_linear(lambda number: (lambda params: lambda: use(params))(buffer(number)), counted)


@pytest.mark.parametrize("groups", [False, True], ids=["one group", "groups"])
@pytest.mark.parametrize("use", OF_OPTIMIZERS.values(), ids=OF_OPTIMIZERS)
def test_optimizers_are_used_in_linear_time(use, groups, counted):
    def work(number):
        opt = momentum(buffer(number), groups)
        opt.step()
        return lambda: use(opt)

    assert_linear(work, counted)


def test_checkpoints_take_linear_time(tmp_path, counted):
    def work(number):
        params = buffer(number)
        opt = momentum(params)

        def there_and_back():
            nb.save(tmp_path / "run", params, opt)
            nb.restore(tmp_path / "run", params, opt)
            nb.load(tmp_path / "run")

        return there_and_back

    assert_linear(work, counted)


ATTRIBUTES = {
    "learning_rate": 2.0,
    "regularizer": nb.regularizer.L2Decay(0.1),
    "need_clip": False,
    "trainable": False,
    "stop_gradient": True,
    "do_model_average": False,
    "value": [1.0, 2.0, 3.0],
    "grad": [1.0, 2.0, 3.0],
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_take_the_same_work_among_few_and_many(name):
    def work(number):
        params = buffer(number)
        params.flat  # noqa: B018 - lays the buffer out
        parameter = params[f"layer.{number - 1}.weight"]
        parameter.value, parameter.grad  # noqa: B018 - makes the views
        return lambda: (setattr(parameter, name, ATTRIBUTES[name]), getattr(parameter, name))

    work(2)()
    assert calls(work(2)) == calls(work(500))


def test_an_edit_of_a_group_takes_the_same_work_among_few_and_many_and_is_obeyed():
    def work(number):
        group = momentum(buffer(number), groups=True).param_groups[-1]
        return lambda: group.update(learning_rate=3.0, momentum=0.5, weight_decay=0.25)

    work(2)()
    assert calls(work(2)) == calls(work(500))
    edited, built = buffer(4), buffer(4)
    options = {"learning_rate": 3.0, "momentum": 0.5, "weight_decay": 0.25}
    opt = nb.optimizer.Momentum(0.1, parameters=[{"params": p} for p in edited.values()])
    opt.param_groups[2].update(options)
    groups = [{"params": p, **(options if i == 2 else {})} for i, p in enumerate(built.values())]
    for each in opt, nb.optimizer.Momentum(0.1, parameters=groups):
        for _ in range(3):
            each.step(arrays(4))
    assert edited.fingerprint() == built.fingerprint() != buffer(4).fingerprint()


def test_names_in_a_message_are_few_and_the_nearest_is_among_them():
    with pytest.raises(KeyError, match=r"did you mean 'layer\.\d+\.weight'.*and 450 others") as found:
        buffer(500)["layer.77.wieght"]
    assert len(str(found.value)) < 2_000


def test_attributes_by_pattern_and_by_name_are_those_of_the_last_that_matches():
    names = ["a.w", "a.b", "c.w", "c.b", "[x]"]
    patterns = ["*.w", "a.w", "a.*", "c.b", "*", "[ac].?", "c.w", "[[]x]"]
    attrs = {pattern: nb.ParamAttr(learning_rate=1.0 + i) for i, pattern in enumerate(patterns)}
    params = nb.ParameterBuffer.from_arrays({name: [1.0] for name in names}, attrs)
    for name in names:
        last = [pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)][-1]
        assert params[name].learning_rate == attrs[last].learning_rate


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**63 + 5, 2**100 + 3])
def test_draws_are_those_of_the_seed_and_the_digest_of_the_name(seed):
    drawn = nb.ParameterBuffer("float64", seed=seed).create_parameter(
        [5], name="w", attr=nb.initializer.Normal()
    )
    entropy = [seed, *hashlib.sha256(b"w").digest()]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    assert_array_equal(drawn.numpy(), generator.normal(size=5))


@pytest.fixture(scope="module")
def many():
    params = buffer(MANY)
    return params, momentum(params)


def test_a_hundred_thousand_parameters_step_in_one_dispatch(many, counted):
    params, opt = many
    few = nb.ParameterBuffer.from_arrays({f"w{i}": np.ones(30_000, np.float32) for i in range(10)})
    few_opt = momentum(few)
    before = params.to_vector().astype(np.float64)
    params.flat_grad[:] = 1.0  # padding, too, which is never read into a result
    opt.step()
    limit = 0.1 / np.sqrt(3.0 * MANY)
    assert_allclose(params.to_vector(), before - limit, rtol=1e-6, atol=1e-9)
    assert_allclose(opt.grad_norm, np.sqrt(3.0 * MANY), rtol=1e-12)
    few_opt.step()
    assert calls(opt.step) == calls(few_opt.step)
    counted("parameters in one step", MANY)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_deep_copy_is_another_buffer_of_the_same_bits(sealed):
    params = create(20)
    if sealed:
        momentum(params).step(arrays(20))
    params["layer.7.weight"].learning_rate = 0.5
    twin = copy.deepcopy(params)
    assert twin.is_sealed == params.is_sealed
    assert list(twin) == list(params)
    assert twin.fingerprint() == params.fingerprint()
    assert twin["layer.7.weight"].learning_rate == 0.5
    twin["layer.7.weight"].learning_rate = 2.0
    twin["layer.7.weight"].set_value([7.0, 7.0, 7.0])
    assert params["layer.7.weight"].learning_rate == 0.5
    assert twin.fingerprint() != params.fingerprint()


def test_the_chunks_of_many_parameters_are_those_of_each_alone():
    items = [Item(f"p{i}", (size,)) for i, size in enumerate([0, 1, 4095, 4096, 4097, 0, 12_289])]
    together = Layout(items, 4)
    for index, item in enumerate(items):
        alone = Layout([item], 4)
        own = together.chunks[:-1][together.chunks[:-1, 1] == index]
        shift = [0, index, together.segments[index, 1], 0, together.segments[index, 3]]
        assert_array_equal(own[:, :5], alone.chunks[:-1, :5] + np.array(shift))
