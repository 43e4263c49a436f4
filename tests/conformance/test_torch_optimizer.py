"""The facade that torch's schedulers take, beside torch's optimizers under the same schedulers."""

import copy

import numpy as np
import pytest

import nbopt as nb

torch = pytest.importorskip("torch", reason="torch is not installed")
lr = torch.optim.lr_scheduler

pytestmark = pytest.mark.conformance

ULPS = 16  # of the largest weight: rounding alone, see test_torch_adopt.py


def layers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def loss_of(net, t):
    x = torch.linspace(-1, 1 + t / 10, 40).reshape(8, 5)
    return (net(x) - x[:, :2]).square().mean()


def sgd(params):
    return nb.optimizer.Momentum(0.1, 0.9, params, use_nesterov=True, weight_decay=0.01)


def adam(params):
    return nb.optimizer.Adam(0.01, 0.9, 0.99, 1e-8, params)


OPTIMIZERS = {
    "momentum": (sgd, lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.01)),
    "adam": (adam, lambda p: torch.optim.Adam(p, 0.01, (0.9, 0.99))),
}


def facade(make=sgd):
    net = layers()
    return net, nb.torch.Optimizer(make(nb.torch.adopt(net)))


def sequence(opt):
    first = lr.LinearLR(opt, start_factor=0.25, total_iters=3)
    return lr.SequentialLR(opt, [first, lr.CosineAnnealingLR(opt, T_max=6)], milestones=[3])


SCHEDULERS = {
    "StepLR": lambda opt: lr.StepLR(opt, 2, gamma=0.5),
    "LambdaLR": lambda opt: lr.LambdaLR(opt, lambda t: t / 8),  # begins at 0
    "OneCycleLR": lambda opt: lr.OneCycleLR(opt, max_lr=0.05, total_steps=12),
    "CyclicLR": lambda opt: lr.CyclicLR(opt, 0.001, 0.05, step_size_up=3, cycle_momentum=True),
    "ReduceLROnPlateau": lambda opt: lr.ReduceLROnPlateau(opt, patience=0, threshold=0.1),
    "SequentialLR": sequence,
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedulers(optimizer, scheduler):
    """Rates, momenta and weights follow torch's."""
    make, make_theirs = OPTIMIZERS[optimizer]
    ours, opt = facade(make)
    theirs = layers()
    their_opt = make_theirs(theirs.parameters())
    runs = [(net, o, SCHEDULERS[scheduler](o)) for net, o in ((ours, opt), (theirs, their_opt))]
    rates = set()
    for t in range(10):
        for net, stepper, schedule in runs:
            stepper.zero_grad()
            loss = loss_of(net, t)
            loss.backward()
            stepper.step()
            schedule.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
        got, expected = opt.param_groups[0], their_opt.param_groups[0]
        assert got["lr"] == pytest.approx(expected["lr"], rel=1e-14)
        for key in ("momentum", "betas"):
            assert got.get(key) == expected.get(key)
        got, expected = (torch.nn.utils.parameters_to_vector(n.parameters()).detach() for n in (ours, theirs))
        assert (got - expected).abs().max() <= ULPS * np.spacing(expected.abs().max().numpy())
        rates.add(opt.param_groups[0]["lr"])
    assert len(rates) > 2


def test_groups_have_rates_of_their_own():
    net = layers()
    params = nb.torch.adopt(net)
    head = {"params": params.select("2.*"), "learning_rate": 0.5, "momentum": 0.5}
    opt = nb.torch.Optimizer(nb.optimizer.Momentum(0.1, parameters=[{"params": params.select("0.*")}, head]))
    schedule = lr.MultiplicativeLR(opt, lambda t: 0.5)
    opt.step()
    schedule.step()
    assert [group["lr"] for group in opt.param_groups] == [0.05, 0.025]
    assert [group["momentum"] for group in opt.param_groups] == [0.9, 0.5]
    assert [len(group["params"]) for group in opt.param_groups] == [2, 2]
    assert opt.param_groups[1]["params"][0] is net[2].weight
    assert schedule.get_last_lr() == [0.05, 0.025]


def test_edits_are_seen_on_both_sides():
    _, opt = facade()
    inner, group = opt.optimizer, opt.param_groups[0]
    assert (group["lr"], group["nesterov"], group["weight_decay"]) == (0.1, True, 0.01)
    group["momentum"] = 0.5
    group.update(nesterov=False, weight_decay=0.25)
    shown = {key: inner.param_groups[0][key] for key in ("momentum", "use_nesterov", "weight_decay")}
    assert shown == {"momentum": 0.5, "use_nesterov": False, "weight_decay": 0.25}
    group |= {"momentum": 0.75}
    assert inner.param_groups[0]["momentum"] == 0.75
    inner.param_groups[0]["weight_decay"] = None
    inner.set_lr(0.2)
    assert (opt.param_groups[0]["lr"], opt.param_groups[0]["weight_decay"]) == (0.2, 0.0)
    group["lr"] = torch.tensor(0.3)
    assert inner.get_lr() * inner.param_groups[0]["learning_rate"] == pytest.approx(0.3, rel=1e-6)


def test_a_rate_of_zero_can_be_raised():
    _, opt = facade()
    opt.optimizer.set_lr(0.0)
    opt.param_groups[0]["lr"] = 0.125
    assert opt.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize(("key", "value"), [("lr", -1.0), ("lr", float("nan")), ("momentum", 1.5)])
def test_edits_are_checked(key, value):
    _, opt = facade()
    before = dict(opt.param_groups[0])
    with pytest.raises(nb.errors.HyperparameterError):
        opt.param_groups[0][key] = value
    assert opt.param_groups[0] == before


def test_a_group_of_betas():
    _, opt = facade(adam)
    assert opt.param_groups[0]["betas"] == (0.9, 0.99)
    with pytest.raises(nb.errors.HyperparameterError):
        opt.param_groups[0]["betas"] = (0.5, 1.5)
    assert opt.optimizer.param_groups[0]["beta1"] == 0.9
    opt.param_groups[0]["eps"] = 1e-6
    assert opt.optimizer.param_groups[0]["epsilon"] == 1e-6


def test_hooks_and_closures():
    net, opt = facade()
    seen = []
    opt.register_step_post_hook(lambda *_: seen.append(opt.optimizer.step_count))

    def closure():
        opt.zero_grad()
        loss = loss_of(net, 0)
        loss.backward()
        return loss

    with torch.no_grad():
        losses = [float(opt.step(closure)) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none):
    net, opt = facade()
    loss_of(net, 0).backward()
    opt.step()
    opt.zero_grad(set_to_none=set_to_none)
    assert (net[0].weight.grad is None) == set_to_none
    before = [p.detach().clone() for p in net.parameters()]
    opt.step()
    assert all(map(torch.equal, before, net.parameters())) == set_to_none  # a gradient of zeros has decay


def trained(steps, make=sgd):
    net, opt = facade(make)
    schedule = lr.OneCycleLR(opt, max_lr=0.05, total_steps=20)
    run(net, opt, schedule, range(steps))
    return net, opt, schedule


def run(net, opt, schedule, steps):
    for t in steps:
        opt.zero_grad()
        loss_of(net, t).backward()
        opt.step()
        schedule.step()


@pytest.mark.parametrize("make", [sgd, adam], ids=["momentum", "adam"])
def test_resumed_through_torch_save(make, tmp_path):
    """The file needs no class of nbopt, and the run goes on with the same bits."""
    net, opt, schedule = trained(5, make)
    saved = {"net": net.state_dict(), "opt": opt.state_dict(), "schedule": schedule.state_dict()}
    torch.save(saved, tmp_path / "run.pt")
    run(net, opt, schedule, range(5, 10))

    again, its_opt, its_schedule = trained(2, make)
    loaded = torch.load(tmp_path / "run.pt", weights_only=True)
    again.load_state_dict(loaded["net"])
    its_opt.load_state_dict(loaded["opt"])
    its_schedule.load_state_dict(loaded["schedule"])
    run(again, its_opt, its_schedule, range(5, 10))
    assert all(map(torch.equal, again.parameters(), net.parameters()))
    assert its_opt.param_groups[0]["lr"] == opt.param_groups[0]["lr"]


def without(key):
    return lambda state: state["state"].pop(key)


DAMAGED = {
    "another kind": lambda state: state.update(param_groups=None),
    "of torch": lambda state: state["param_groups"][0].update(params=[0, 1, 2, 3]),
    "fewer groups": lambda state: state["param_groups"].clear(),
    "an entry is missing": without("0.weight.velocity"),
    "a value is wrong": lambda state: state["param_groups"][0].update(momentum=2.0),
    "a rate is missing": lambda state: state["param_groups"][0].pop("learning_rate"),
    "a rate is wrong": lambda state: state["param_groups"][0].update(learning_rate=-2.0),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_state_changes_nothing(how):
    _, opt, _ = trained(3)
    other = trained(5)[1].state_dict()
    DAMAGED[how](other)
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(nb.NboptError):
        opt.load_state_dict(other)
    after = opt.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"].keys() == before["state"].keys()
    assert all(np.array_equal(after["state"][key], value) for key, value in before["state"].items())


def test_states_are_copies():
    net, opt, schedule = trained(2)
    state = opt.state_dict()
    kept = copy.deepcopy(state)
    run(net, opt, schedule, range(2, 4))
    assert torch.equal(state["state"]["0.weight.velocity"], kept["state"]["0.weight.velocity"])


def test_what_is_refused():
    _, opt = facade()
    with pytest.raises(TypeError, match=r"opt\.optimizer\.add_param_group"):
        opt.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(opt)
    with pytest.raises(TypeError, match="takes an optimizer of nbopt, got SGD"):
        nb.torch.Optimizer(torch.optim.SGD(layers().parameters(), 0.1))
    plain = nb.ParameterBuffer.from_arrays({"w": [1.0]})
    with pytest.raises(nb.errors.ParameterError, match=r"'w' belongs to no torch module"):
        nb.torch.Optimizer(nb.optimizer.SGD(0.1, plain))


def test_weight_norm_parts_are_shown_as_their_tensor():
    layer = torch.nn.Linear(3, 2)
    params = nb.torch.adopt(layer, attrs={"weight": nb.WeightNormParamAttr(dim=0)})
    weight = params["weight"]
    opt = nb.torch.Optimizer(nb.optimizer.SGD(0.1, [weight.weight_g, weight.weight_v]))
    assert [tensor is layer.weight for tensor in opt.param_groups[0]["params"]] == [True]
    state = opt.state_dict()
    assert state["param_groups"][0]["params"] == ["weight_g", "weight_v"]
    opt.load_state_dict(state)
