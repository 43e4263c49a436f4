"""Modules of torch on the storage of a buffer, trained beside the same modules under torch's optimizers."""

import copy
import pickle

import numpy as np
import pytest

import nbopt as nb

torch = pytest.importorskip("torch", reason="torch is not installed")

pytestmark = pytest.mark.conformance

# Both round every operation once, in another order: torch forms the bias corrections of Adam in float32,
# nbopt in float64, and each step feeds its rounding into the next gradient. 30 steps stay below 16 units in
# the last place of the largest weight; without decay, clip or the right momentum they are off by 10,000.
ULPS, STEPS = 16, 30


@pytest.fixture(autouse=True)
def one_thread():
    """And the same values in every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


class Net(torch.nn.Module):
    """An encoder with a frozen layer, a decoder tied to it, an unused layer, and running statistics."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = torch.nn.Linear(6, 8)
            self.norm = torch.nn.BatchNorm1d(8)
            self.fixed = torch.nn.Linear(8, 8).requires_grad_(False)
            self.unused = torch.nn.Linear(2, 2)
            self.last = torch.nn.Linear(8, 6)
        self.decoder = torch.nn.Linear(6, 8, bias=False)
        self.decoder.weight = self.first.weight
        self.to(dtype)

    def forward(self, x):
        hidden = torch.tanh(self.fixed(self.norm(torch.tanh(self.first(x)))))
        return self.last(self.decoder(self.last(hidden)))


def batch(t, dtype=torch.float32):
    generator = torch.Generator().manual_seed(t)
    return torch.randn(32, 6, generator=generator, dtype=dtype)


def backward(net, t):
    x = batch(t, net.first.weight.dtype)
    loss = 1e3 * (net(x) - x.flip(1)).square().mean()  # large: torch adds 1e-6 to the norm of a clip
    loss.backward()
    return loss


def off_by(ours, theirs):
    """The largest difference of parameters, in units in the last place of the largest."""
    pairs = [(a.detach().numpy(), b.detach().numpy()) for a, b in zip(ours, theirs, strict=True)]
    largest = max(np.max(np.abs(b)) for _, b in pairs)
    return max(np.max(np.abs(a - b)) for a, b in pairs) / np.spacing(largest)


LIMIT = 100.0
CLIP = nb.ClipGradByGlobalNorm(LIMIT)
PAIRS = {
    "sgd": (
        lambda p: nb.optimizer.SGD(1e-5, p, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 1e-5, weight_decay=0.1),
    ),
    "momentum-clip": (
        lambda p: nb.optimizer.Momentum(1e-3, 0.9, p, weight_decay=0.1, grad_clip=CLIP),
        lambda p: torch.optim.SGD(p, 1e-3, 0.9, weight_decay=0.1),
    ),
    "nesterov": (
        lambda p: nb.optimizer.Momentum(1e-5, 0.9, p, use_nesterov=True),
        lambda p: torch.optim.SGD(p, 1e-5, 0.9, nesterov=True),
    ),
    "adam-clip": (
        lambda p: nb.optimizer.Adam(1e-3, parameters=p, weight_decay=0.1, grad_clip=CLIP),
        lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.1),
    ),
    "adamw-clip": (
        lambda p: nb.optimizer.AdamW(1e-3, parameters=p, weight_decay=0.1, grad_clip=CLIP),
        lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1),
    ),
}
ZEROS = {
    "set-to-none": lambda net, opt: net.zero_grad(),
    "in-place": lambda net, opt: opt.zero_grad(),
    "of-the-module": lambda net, opt: net.zero_grad(set_to_none=False),
}


def pair(key="momentum-clip", dtype=torch.float32):
    """A module under nbopt and one under torch, and their optimizers."""
    ours, theirs = Net(dtype), Net(dtype)
    make, make_theirs = PAIRS[key]
    params = nb.torch.adopt(ours)
    return ours, theirs, params, make(params), make_theirs(theirs.parameters())


def train(ours, theirs, opt, their_opt, clip, zero, steps=range(STEPS), after=lambda: None):
    for t in steps:
        zero(ours, opt)
        backward(ours, t)
        opt.step()
        their_opt.zero_grad()
        backward(theirs, t)
        if clip:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), LIMIT)
        their_opt.step()
        after()
        assert off_by(ours.parameters(), theirs.parameters()) <= ULPS, t


# --- the same training ----------------------------------------------------------------------------


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("key", PAIRS)
def test_training(key, zero):
    """Whatever empties the gradients; frozen and unused parameters stay, tied ones move once."""
    ours, theirs, params, opt, their_opt = pair(key)
    before = params.numpy()
    train(ours, theirs, opt, their_opt, "clip" in key, ZEROS[zero])
    assert [name for name, p in params.items() if not p.trainable] == ["fixed.weight", "fixed.bias"]
    still = {name for name, value in params.numpy().items() if np.array_equal(value, before[name])}
    assert still == {"fixed.weight", "fixed.bias", "unused.weight", "unused.bias"}
    assert "decoder.weight" not in params
    assert ours.decoder.weight is ours.first.weight


def test_training_in_float64():
    ours, theirs, params, opt, their_opt = pair("nesterov", torch.float64)
    assert params.dtype == np.float64
    train(ours, theirs, opt, their_opt, False, ZEROS["in-place"])


def test_gradients_are_summed_over_passes():
    ours, theirs, _, opt, their_opt = pair()
    for net in (ours, theirs):
        for t in range(3):
            backward(net, t)
    opt.step()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), LIMIT)
    their_opt.step()
    assert off_by(ours.parameters(), theirs.parameters()) <= ULPS


def test_a_gradient_of_zeros_counts_as_torch_counts_it():
    """After None, zeros that torch has written are a gradient: there is decay. None is not."""
    theirs = torch.nn.Linear(2, 1)
    ours = copy.deepcopy(theirs)
    opt = nb.optimizer.SGD(0.5, nb.torch.adopt(ours), weight_decay=0.5)
    their_opt = torch.optim.SGD(theirs.parameters(), 0.5, weight_decay=0.5)
    for net in (ours, theirs):
        net.zero_grad()
        net(torch.zeros(1, 2)).sum().backward()  # dL/dweight is zero
        net.bias.grad = None
    opt.step()
    their_opt.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_of_a_layer(dim):
    """The layer reads w and knows nothing of g and v; torch computes both in its graph."""
    plain = torch.nn.Linear(5, 3).double()
    theirs = copy.deepcopy(plain)
    torch.nn.utils.parametrizations.weight_norm(theirs, dim=dim)
    params = nb.torch.adopt(plain, attrs={"weight": nb.WeightNormParamAttr(dim=dim)})
    opt = nb.optimizer.Momentum(0.01, 0.9, params)
    their_opt = torch.optim.SGD(theirs.parameters(), 0.01, 0.9)
    for t in range(10):
        opt.zero_grad()
        their_opt.zero_grad()
        for net in (plain, theirs):
            net(batch(t, torch.float64)[:, :5]).square().mean().backward()
            net.weight.detach()
        opt.step()
        their_opt.step()
        assert off_by([plain.weight], [theirs.weight]) <= ULPS


# --- what torch does with its tensors -------------------------------------------------------------


def adopted(**options):
    net = Net()
    params = nb.torch.adopt(net, **options)
    return net, params, nb.optimizer.Momentum(1e-4, 0.9, params)


def one_step(net, opt, t=0):
    backward(net, t)
    opt.step()


def test_nothing_is_copied():
    net, params, opt = adopted()
    for t in range(3):
        opt.zero_grad()
        one_step(net, opt, t)
        for name, p in net.named_parameters():
            assert np.shares_memory(p.detach().numpy(), params[name].value)
            assert np.shares_memory(p.detach().numpy(), params.flat)
            if p.requires_grad:
                assert np.shares_memory(p.grad.numpy(), params.flat_grad)


def test_the_module_stays_what_it_was():
    plain, net = Net(), Net()
    values = {name: value.clone() for name, value in net.state_dict().items()}
    nb.torch.adopt(net)
    assert list(net.state_dict()) == list(values)
    assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())
    assert [*map(type, net.parameters())] == [*map(type, plain.parameters())]
    assert torch.equal(net(batch(0)), plain(batch(0)))


def test_gradients_from_before_are_kept():
    net = Net()
    backward(net, 0)
    before = net.first.weight.grad.clone()
    params = nb.torch.adopt(net)
    assert torch.equal(net.first.weight.grad, before)
    assert np.array_equal(params["first.weight"].grad, before)
    assert params["first.weight"].has_grad
    assert not params["unused.weight"].has_grad


def test_load_state_dict_fills_the_buffer():
    net, params, opt = adopted()
    other = Net()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    net.load_state_dict(other.state_dict())
    assert np.array_equal(params["last.bias"].value, other.last.bias.detach())
    one_step(net, opt)


def test_a_checkpoint_fills_the_module(tmp_path):
    net, params, opt = adopted()
    one_step(net, opt)
    nb.save(tmp_path / "run.safetensors", params, opt)
    before = net.last.weight.detach().clone()
    one_step(net, opt, 1)
    assert not torch.equal(net.last.weight, before)
    nb.restore(tmp_path / "run.safetensors", params, opt)
    assert torch.equal(net.last.weight, before)


def test_averages_stand_in_the_module():
    net, params, opt = adopted()
    ema = nb.ExponentialMovingAverage(0.5, params)
    for t in range(3):
        opt.zero_grad()
        one_step(net, opt, t)
        ema.update()
    before = net.last.weight.detach().clone()
    with ema.apply():
        assert not torch.equal(net.last.weight, before)
    assert torch.equal(net.last.weight, before)


def copies(net, params, how):
    return copy.deepcopy((net, params)) if how == "deepcopy" else pickle.loads(pickle.dumps((net, params)))


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_part(how):
    """Of the module as torch makes them, of the buffer one that belongs to no module."""
    net, params, opt = adopted()
    one_step(net, opt)
    other, values = copies(net, params, how)
    assert type(values) is nb.ParameterBuffer
    assert values.fingerprint() == params.fingerprint()
    one_step(net, opt, 1)
    assert values.fingerprint() != params.fingerprint()
    assert np.array_equal(values["last.weight"].value, other.last.weight.detach())
    assert not np.shares_memory(values.flat, other.last.weight.detach().numpy())
    again = nb.torch.adopt(other)
    one_step(other, nb.optimizer.Momentum(1e-4, parameters=again), 1)


REPLACED = {
    "another tensor": lambda p: setattr(p, "grad", p.grad * 2),
    "other data": lambda p: setattr(p.grad, "data", p.grad * 2),
    "in place": lambda p: p.grad.mul_(2),
    "sparse": lambda p: setattr(p, "grad", (p.grad * 2).to_sparse()),
    "with a graph": lambda p: setattr(p, "grad", p.grad * torch.tensor(2.0, requires_grad=True)),
}


@pytest.mark.parametrize("how", REPLACED)
def test_replaced_gradients_are_taken_over(how):
    net, params, opt = adopted()
    backward(net, 0)
    expected = {name: p.grad * 2 for name, p in net.named_parameters() if p.requires_grad}
    for p in net.parameters():
        if p.requires_grad:
            REPLACED[how](p)
    opt.step()
    for name, grad in expected.items():
        assert np.array_equal(params[name].grad, grad), name
        assert np.shares_memory(params[name].grad, net.get_parameter(name).grad.numpy())


READS = {
    "clip": lambda params: nb.clip_grad_norm_(params, 1e9),
    "clip by value": lambda params: nb.clip_grad_value_(params, 1e9),
    "vector": lambda params: params.to_vector("grad"),
    "gather": lambda params: params.gather_grads(),
}


@pytest.mark.parametrize("how", READS)
def test_gradients_are_taken_over_before_they_are_read(how):
    net, params, _ = adopted()
    net.zero_grad()
    backward(net, 0)
    expected = net.last.weight.grad.clone()
    READS[how](params)
    assert np.array_equal(params["last.weight"].grad, expected)
    assert not params["unused.weight"].has_grad


@pytest.mark.parametrize("whole", [True, False])
def test_clearing_discards_what_torch_allocated(whole):
    net = Net()
    params = nb.torch.adopt(net)
    opt = nb.optimizer.SGD(1e-4, params if whole else params.select("last.*"))
    net.zero_grad()
    backward(net, 0)
    opt.zero_grad()
    backward(net, 1)
    expected = net.last.weight.grad.clone()
    fresh = Net()
    backward(fresh, 1)
    assert torch.equal(expected, fresh.last.weight.grad)
    opt.step()
    assert np.array_equal(params["last.weight"].grad, expected)


def test_gradients_handed_over_win():
    net, params, opt = adopted()
    net.zero_grad()
    backward(net, 0)
    before = params.numpy()
    opt.step({"last.bias": np.ones(6, np.float32)})
    moved = {name for name, value in params.numpy().items() if not np.array_equal(value, before[name])}
    assert moved == {"last.bias"}
    assert np.array_equal(params["last.bias"].grad, np.ones(6))


def test_requires_grad_is_obeyed():
    net, params, opt = adopted()
    one_step(net, opt)
    net.last.requires_grad_(False)
    net.fixed.requires_grad_(True)
    before = params.numpy("*.bias")
    opt.zero_grad()
    one_step(net, opt, 1)
    moved = {name for name, value in before.items() if not np.array_equal(params[name].value, value)}
    assert moved == {"first.bias", "norm.bias", "fixed.bias"}
    net.last.requires_grad_(True)
    one_step(net, opt, 2)
    assert not np.array_equal(params["last.bias"].value, before["last.bias"])


def test_a_frozen_parameter_of_the_buffer_stays_so():
    net, params, opt = adopted(attrs={"last.*": nb.ParamAttr(trainable=False)})
    params.freeze("first.bias")
    before = params.numpy()
    one_step(net, opt)
    assert np.array_equal(params["last.bias"].value, before["last.bias"])
    assert np.array_equal(params["first.bias"].value, before["first.bias"])
    assert not np.array_equal(params["first.weight"].value, before["first.weight"])


LEAVES = {
    "another dtype": lambda net: net.double(),
    "new parameters": lambda net: net.load_state_dict(Net().state_dict(), assign=True),
    "another buffer": lambda net: nb.torch.adopt(net),
    "one parameter": lambda net: setattr(net.last, "bias", torch.nn.Parameter(torch.zeros(6))),
    "untied": lambda net: setattr(net.decoder, "weight", torch.nn.Parameter(torch.zeros(8, 6))),
    "no parameter": lambda net: delattr(net.last, "bias"),
    "reparametrized": lambda net: torch.nn.utils.parametrizations.weight_norm(net.last),
}


@pytest.mark.parametrize("how", LEAVES)
def test_values_that_lie_elsewhere_are_refused(how):
    net, params, opt = adopted()
    one_step(net, opt)
    LEAVES[how](net)
    before = params.fingerprint()
    with pytest.raises(nb.errors.ParameterError, match=r"parameter '.*' of the module no longer lies in"):
        opt.step()
    assert params.fingerprint() == before
    assert opt.step_count == 1


def test_moves_that_move_nothing_are_fine():
    net, _, opt = adopted()
    net.to(torch.float32).cpu().train().requires_grad_(True)
    one_step(net, opt)


def test_autograd_notices_a_step():
    """A second backward pass through weights that a step has moved would be wrong."""
    net, _, opt = adopted()
    loss = net(batch(0)).sum()
    loss.backward(retain_graph=True)
    opt.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


NO_STEPS = {
    "clear": lambda params, opt: opt.clear_grad(),
    "clear one": lambda params, opt: nb.optimizer.SGD(0.1, params["last.bias"]).clear_grad(),
    "torch's zero_grad": lambda params, opt: nb.torch.Optimizer(opt).zero_grad(),
    "read": lambda params, opt: params.to_vector("grad"),
}


@pytest.mark.parametrize("how", NO_STEPS)
def test_what_is_no_step_leaves_a_graph_alone(how):
    """Many loops clear between the forward and the backward pass."""
    net, params, opt = adopted()
    loss = net(batch(0)).square().mean()
    NO_STEPS[how](params, opt)
    loss.backward()
    assert params["last.weight"].grad.any()


KEPT = {
    "save": lambda params, path: nb.save(path, params),
    "export": lambda params, path: nb.export(path, params),
    "pickle": lambda params, path: path.write_bytes(pickle.dumps(params)),
}


@pytest.mark.parametrize("how", KEPT)
def test_what_is_kept_is_what_the_module_holds(how, tmp_path):
    layer, path = torch.nn.Linear(3, 2), tmp_path / "kept"
    params = nb.torch.adopt(layer, attrs={"weight": nb.WeightNormParamAttr(dim=0)})
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]]))
    KEPT[how](params, path)
    assert params["weight"].weight_g.numpy().ravel().tolist() == [5.0, 2.0]
    layer.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, assign=True)
    with pytest.raises(nb.errors.ParameterError, match="no longer lies in the buffer"):
        KEPT[how](params, path)


def test_gradients_of_another_dtype_are_taken_over():
    layer = torch.nn.Linear(2, 1)
    params = nb.torch.adopt(layer)
    params.clear_grad(set_to_zero=False)
    layer.zero_grad()
    params.gather_grads()
    layer.weight.grad_dtype = None
    layer.weight.grad = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert params.to_vector("grad").tolist() == [1.0, 2.0, 0.0]


def test_weights_that_torch_writes_get_g_and_v():
    layer = torch.nn.Linear(3, 2)
    params = nb.torch.adopt(layer, attrs={"weight": nb.WeightNormParamAttr(dim=0)})
    opt = nb.optimizer.SGD(0.5, params)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]]))
    opt.step()
    assert params["weight"].weight_g.numpy().ravel().tolist() == [5.0, 2.0]
    v = params["weight_v"].numpy()
    layer(torch.ones(1, 3)).sum().backward()
    opt.step()  # v moves as g does: it is not found anew
    opt.clear_grad()
    after = params["weight_v"].numpy()
    opt.step()
    assert np.array_equal(params["weight_v"].numpy(), after)
    assert not np.array_equal(after, v)


@pytest.mark.parametrize(
    "module",
    [
        lambda: torch.nn.LSTM(3, 4, num_layers=2),
        lambda: torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last),
    ],
    ids=["lstm", "channels_last"],
)
def test_other_layers(module):
    theirs = module()
    ours = copy.deepcopy(theirs)
    opt = nb.optimizer.SGD(0.1, nb.torch.adopt(ours))
    their_opt = torch.optim.SGD(theirs.parameters(), 0.1)
    x = torch.linspace(-1, 1, 5 * 2 * 3).reshape(5, 2, 3) if isinstance(ours, torch.nn.LSTM) else None
    x = torch.linspace(-1, 1, 2 * 8 * 8).reshape(1, 2, 8, 8) if x is None else x
    for net, stepper in ((ours, opt), (theirs, their_opt)):
        out = net(x)
        (out[0] if isinstance(out, tuple) else out).square().sum().backward()
        stepper.step()
    assert off_by(ours.parameters(), theirs.parameters()) <= 4


def test_scalars_and_empty_parameters():
    module = torch.nn.Module()
    module.scale = torch.nn.Parameter(torch.tensor(2.0))
    module.empty = torch.nn.Parameter(torch.zeros(0, 3))
    params = nb.torch.adopt(module)
    (module.scale.square() + module.empty.sum()).backward()
    nb.optimizer.SGD(0.25, params).step()
    assert module.scale.item() == 1.0


# --- what is refused ------------------------------------------------------------------------------


def overlapping():
    module = torch.nn.Module()
    whole = torch.zeros(4)
    module.one, module.other = torch.nn.Parameter(whole[:3]), torch.nn.Parameter(whole[2:])
    return module


def mixed():
    net = Net()
    net.last.double()
    return net


def made_in_inference_mode():
    with torch.inference_mode():
        return Net()


REFUSED = {
    "inference": (made_in_inference_mode, nb.errors.ParameterError, "'first.weight' would .*inference_mode"),
    "no module": (lambda: [torch.zeros(1)], TypeError, "takes a torch.nn.Module, got list"),
    "no parameters": (lambda: torch.nn.ReLU(), nb.errors.ParameterError, "no parameters"),
    "bfloat16": (lambda: Net(torch.bfloat16), TypeError, r"is torch.bfloat16.*module.float\(\)"),
    "half": (lambda: Net(torch.float16), TypeError, "'first.weight' is torch.float16"),
    "complex": (lambda: Net().to(torch.complex64), TypeError, "'first.weight' is torch.complex64"),
    "two dtypes": (mixed, TypeError, "'first.weight' is torch.float32 and 'last.weight' is torch.float64"),
    "another device": (lambda: Net().to("meta"), nb.errors.DeviceError, "'first.weight' is on meta"),
    "no shape": (lambda: torch.nn.LazyLinear(3), nb.errors.ParameterError, "'weight' has no shape yet"),
    "overlap": (overlapping, nb.errors.ParameterError, "'one' and 'other' overlap"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature", "ignore:Lazy modules")
def test_modules_that_are_refused(what):
    make, kind, message = REFUSED[what]
    with pytest.raises(kind, match=message):
        nb.torch.adopt(make())


def test_adoption_in_inference_mode_is_refused():
    net = Net()
    with torch.inference_mode(), pytest.raises(nb.errors.ParameterError, match="inference_mode"):
        nb.torch.adopt(net)


def test_a_refused_module_is_unchanged():
    net = Net()
    before = [(p, p.data_ptr(), p.grad) for p in net.parameters()]
    with pytest.raises(nb.errors.ParameterError, match="matches no array"):
        nb.torch.adopt(net, attrs={"*.kernel": nb.ParamAttr()})
    assert all(p.data_ptr() == pointer and p.grad is grad for p, pointer, grad in before)


def test_parameters_left_to_torch():
    net = mixed()
    params = nb.torch.adopt(net, attrs={"last.*": False, "first.*": nb.ParamAttr(learning_rate=0.5)})
    assert not [name for name in params if name.startswith("last.")]
    assert params["first.bias"].learning_rate == 0.5
    assert net.last.weight.grad is None


@pytest.mark.parametrize("set_to_none", [False, True])
def test_a_gradient_of_autograd_is_checked_and_put_back(set_to_none):
    """Where torch allocates gradients anew in each call, too."""
    net = torch.nn.Linear(3, 2).double()
    params = nb.torch.adopt(net)
    params["weight"].grad = np.full((2, 3), 7.0)
    x = torch.ones(4, 3, dtype=torch.float64)

    def fun(params, factor):
        net.zero_grad(set_to_none)
        loss = net(x).square().mean()
        (factor * loss).backward()
        return loss

    assert nb.check_gradient(fun, params, args=1.0).ok
    assert nb.check_gradient(fun, params, args=2.0)["weight"].ratio == pytest.approx(2.0, rel=1e-6)
    assert (params.to_vector("grad")[:6] == 7.0).all()
    assert (net.weight.grad == 7.0).all()
