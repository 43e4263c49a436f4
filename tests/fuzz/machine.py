"""The machine: steps and edits, and what must hold after each of them."""

import copy

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import nbopt as nb
from nbopt.errors import NonFiniteGradientError
from tests.fuzz.model import DECAY, DIM, GROUPS, RAISED, SHAPES, STEPPED, WINDOW, Model, is_close
from tests.fuzz.world import (
    ATTRIBUTES,
    EDITS,
    GROUP_VALUES,
    INF,
    NAN,
    SETTINGS,
    SHARED,
    World,
    as_group,
    as_value,
    assert_bits,
    new_clips,
)
from tests.optimizer import frozen_bytes

seeds = st.integers(0, 999)
names = st.sampled_from(list(SHAPES))
parts = st.sampled_from(["", "_g", "_v"])  # of a weight-normed one
fates = st.tuples(*[st.sampled_from(["drawn", "drawn", "zero", "absent", "left"])] * len(SHAPES))
HOWS = ["grad", "set_grads", "mapping", "vector", "vector to step", "views", "flat"]


class Machine(RuleBasedStateMachine):
    """Steps and edits. A subclass says `dtype` and `normed`."""

    dtype, normed = np.dtype("float64"), True
    rules = runs = 0  # of all instances

    @initialize(seed=seeds, guard=st.sampled_from(["raise", "skip", "propagate"]))
    def begin(self, seed, guard):
        type(self).runs += 1
        rng = np.random.default_rng(seed)
        values = {name: np.asarray(rng.normal(size=shape), self.dtype) for name, shape in SHAPES.items()}
        defaults = {"learning_rate": 1.0, "weight_decay": None, "grad_clip": SHARED, "rescale_grad": 1.0}
        defaults |= {"momentum": 0.9, "use_nesterov": False}
        groups = [{"params": list(names), **defaults} for names in GROUPS]
        self.model = Model(values, self.normed, guard, 0.1, groups)
        self.world = self.fresh()
        self.adopt(*(f"{name}_g" for name in self.model.dims))
        self.taken = []  # copies that the package gave, and their bytes
        self.old = []  # worlds that are left behind, and their pictures
        self.bystanders = []  # optimizers that are left behind, and their states
        self.remembered = []  # states of the optimizer and of the averages, and the models of that time
        self.remembered_files = []  # checkpoints, and the models of that time

    def fresh(self):
        """A world of the same parameters, attributes and groups; values and states are to be filled in."""
        params = nb.ParameterBuffer(self.dtype)
        for name in SHAPES:
            attr = {"initializer": nb.initializer.Assign(self.model.value(name)), "do_model_average": True}
            is_normed = name in self.model.dims
            kind = nb.WeightNormParamAttr(dim=DIM, **attr) if is_normed else nb.ParamAttr(**attr)
            made = params.create_parameter(SHAPES[name], name, attr=kind)
            assert params.create_parameter(SHAPES[name], name) is made  # shared
        for name, leaf in self.model.leaves.items():
            for key in ATTRIBUTES:
                setattr(params[name], key, as_value(key, getattr(leaf, key)))
        clips = new_clips()
        opt = self.optimizer(params, clips)
        windows = nb.ModelAverage(*WINDOW[:1], params, *WINDOW[1:])
        return World(params, opt, windows, self.exponential(params), clips)

    def optimizer(self, params, clips):
        groups = [as_group(group, params, clips) for group in self.model.groups]
        return nb.optimizer.Momentum(self.model.learning_rate, parameters=groups, nonfinite=self.model.guard)

    @staticmethod
    def exponential(params):
        return nb.ExponentialMovingAverage(DECAY, params)

    # --- what always holds

    @invariant()
    def nothing_else_has_changed(self):
        if not hasattr(self, "model"):
            return
        type(self).rules += 1
        model, world = self.model, self.world
        for name, leaf in model.leaves.items():
            assert_bits(world.views[name], leaf.value, name)
            for key in ATTRIBUTES:
                got, need = getattr(world.params[name], key), as_value(key, getattr(leaf, key))
                assert got == need, (name, key, got, need)
        for name in SHAPES:
            assert_bits(world.grads[name], model.grads[name], f"gradient of {name}")
            assert world.params[name].has_grad == model.present[name], name
        for name in model.dims:
            assert_bits(world.views[name], model.composed[name], name)
            expected, bound = model.compose(name)
            assert is_close(model.composed[name], expected, bound), (model.composed[name], expected)
        state = world.opt.state_dict()
        state = {key: value for key, value in state.items() if not key.startswith("LR_Scheduler.")}
        assert frozen_bytes(state) == frozen_bytes(model.optimizer_state())
        assert world.opt.get_lr() == model.learning_rate
        norm, need = world.opt.grad_norm, model.grad_norm
        if norm is not None and need is not None:
            assert is_close(np.array(norm), need, 1e-13 * need), (norm, need)
        held = model.backup and model.backup[0]
        for which in ("windows", "exponentials"):
            average = getattr(world, which)
            assert average.is_applied == (which == held)
            if not average.is_applied:
                assert frozen_bytes(average.state_dict()) == frozen_bytes(model.average_state(which))
        for group, own in zip(world.opt.param_groups, model.groups, strict=True):
            assert [p.name for p in group["params"]] == own["params"]
            for key in GROUP_VALUES:
                assert group[key] == as_value(key, own[key], world.clips), key
        if world.schedule is not None:
            assert world.schedule.last_epoch == model.schedule[1]
        for array, spare in world.padding:
            array[spare] = NAN
        for value, content in self.taken[-3:]:
            assert frozen_bytes(value) == content

    def teardown(self):
        for value, content in getattr(self, "taken", []):
            assert frozen_bytes(value) == content
        for world, picture in getattr(self, "old", []):
            assert world.picture() == picture
        for opt, state in getattr(self, "bystanders", []):
            assert frozen_bytes(opt.state_dict()) == state

    def keep(self, value):
        """Note what the package gave as a copy."""
        self.taken.append((value, frozen_bytes(value)))

    # --- the model follows

    def adopt(self, *leaves):
        """Take over w after a call that composes it, which the invariant compares, and what is a norm."""
        for name in leaves:
            got, leaf = self.world.views[name], self.model.leaves[name]
            assert is_close(got, leaf.value, 4 * np.finfo(self.dtype).eps * np.abs(leaf.value)), name
            leaf.value = got.copy()
        for name in self.model.dims:
            self.model.composed[name] = self.world.views[name].copy()

    def draw(self, seed, scale=1.0):
        rng = np.random.default_rng(seed)
        return {name: np.asarray(scale * rng.normal(size=s), self.dtype) for name, s in SHAPES.items()}

    def write(self, how, fate, drawn):
        """Write gradients in one of the ways, here and in the model; return the argument of step."""
        world, model, argument = self.world, self.model, None
        if how.startswith("vector"):
            fate = ["drawn"] * len(SHAPES)
        given = {}
        for name, what in zip(SHAPES, fate, strict=True):
            if what != "left":
                zero = np.zeros_like(drawn[name])
                given[name] = {"drawn": drawn[name], "zero": zero, "absent": None}[what]
        if how in ("views", "flat"):
            for name, grad in given.items():
                grad = np.zeros_like(drawn[name]) if grad is None else grad
                if how == "views":
                    world.grads[name][...] = grad
                else:
                    world.params.flat_grad[world.params.slices[name]] = grad.ravel()
                model.grads[name] = grad.copy()
            return None
        if how == "grad":
            for name, grad in given.items():
                world.params[name].grad = grad
        elif how == "set_grads":
            world.params.set_grads(given)
        elif how == "mapping":
            argument = dict(given)
            given = dict.fromkeys(model.held()) | given
        else:
            vector = np.concatenate([grad.ravel() for grad in given.values()])
            argument = vector if how == "vector to step" else world.params.set_grads(vector)
        for name, grad in given.items():
            model.set_grad(name, grad)
        return argument

    def follow(self, step):
        """Take a step in both, compare, and take over its bits; whether it was one."""
        model, world = self.model, self.world
        outcome, active = model.begin()
        if outcome == RAISED:
            with pytest.raises(NonFiniteGradientError):
                step()
        else:
            step()
        if outcome != STEPPED:
            return False
        found = model.move()
        assert sorted(found) == sorted(active)
        state = world.opt.state_dict()
        for name, (value, within, velocity, room) in found.items():
            got, leaf = world.views[name], model.leaves[name]
            assert is_close(got, value, within), (name, got, value, within)
            assert is_close(state[f"{name}.velocity"], velocity, room), (name, velocity)
            leaf.value, leaf.state["velocity"] = got.copy(), state[f"{name}.velocity"]
            leaf.steps += 1
        if any(part in found for name in model.dims for part in model.parts(name)):
            self.adopt()
        return True

    # --- steps

    @rule(how=st.sampled_from(HOWS), fate=fates, seed=seeds, scale=st.sampled_from([1.0, 1e-3, 1e3]))
    def step(self, how, fate, seed, scale):
        argument = self.write(how, fate, self.draw(seed, scale))
        self.follow(lambda: self.world.opt.step(argument))

    @rule()
    def step_again(self):
        self.follow(self.world.opt.step)

    @rule(how=st.sampled_from(["views", "grad", "vector to step"]), fate=fates, seed=seeds)
    def jit_step(self, how, fate, seed):
        argument = self.write(how, fate, self.draw(seed))
        if argument is not None:
            self.world.params.set_grads(argument)
        self.follow(self.take_jit_step)

    def take_jit_step(self):
        take, state = self.world.opt.jit_step()
        code = take(state)
        if not code:
            return
        assert code == 1
        if self.model.guard == "raise" or self.model.row == 0:
            assert take(state) == 1  # until check has raised it
        self.world.opt.check()

    @rule(chosen=st.sets(names, min_size=1), seed=seeds, leave_out=st.booleans())
    def minimize(self, chosen, seed, leave_out):
        """A step on some of the parameters: the others are as frozen."""
        model, held = self.model, self.model.held()
        chosen = [name for name in held if name in chosen]
        moving = [name for name in held if name not in chosen] if leave_out else chosen
        self.write("views", ["drawn"] * len(SHAPES), self.draw(seed))
        still = [model.leaves[p] for name in held if name not in moving for p in model.parts(name)]
        before = [leaf.trainable for leaf in still]
        for leaf in still:
            leaf.trainable = False
        option = {"no_grad_set": chosen} if leave_out else {"parameters": chosen}
        self.follow(lambda: self.world.opt.minimize(0.5, **option))
        for leaf, value in zip(still, before, strict=True):
            leaf.trainable = value

    @rule(
        how=st.sampled_from(["grad", "mapping", "views", "jit"]),
        name=names,
        value=st.sampled_from([NAN, INF, -INF, "huge"]),
        times=st.sampled_from([1, 1, 2, 11]),
        seed=seeds,
    )
    def wild_step(self, how, name, value, times, seed):
        """NaN, Inf, or what overflows when it is squared. Where it was a step, go back."""
        drawn = self.draw(seed)
        if value != "huge" and self.model.guard == "propagate" and name in self.model.dims:
            name = "b"  # which sums of a slice are NaN, and which Inf, is not said
        if value == "huge":
            drawn[name] *= 1e30 if self.dtype == np.float32 else 1e200
        elif drawn[name].size:
            drawn[name].flat[seed % drawn[name].size] = value
        values = self.world.params.to_vector(space="trainable")
        state, then = self.world.opt.state_dict(), copy.deepcopy(self.model)
        for _ in range(times):
            argument = self.write("grad" if how == "jit" else how, ["drawn"] * len(SHAPES), drawn)
            jit = self.take_jit_step
            if self.follow(jit if how == "jit" else lambda: self.world.opt.step(argument)):  # noqa: B023
                break
        else:
            self.write("grad", ["zero"] * len(SHAPES), drawn)
            return
        self.world.opt.set_state_dict(state)
        self.model.take_optimizer(then)
        with np.errstate(all="ignore"):
            self.world.params.from_vector(values, space="trainable")
        for leaf_name, leaf in self.model.leaves.items():
            leaf.value = then.leaves[leaf_name].value
        self.adopt()
        self.write("grad", ["zero"] * len(SHAPES), drawn)

    # --- edits

    @rule(
        where=parts,
        name=names,
        setting=st.sampled_from(SETTINGS),
        other=st.booleans(),
    )
    def set_attribute(self, where, name, setting, other):
        key, value = setting
        target = name + where if name in self.model.dims else name
        if other and key == "trainable":
            self.world.params[target].stop_gradient = not value
        else:
            setattr(self.world.params[target], key, as_value(key, value))
        for leaf in self.model.parts(name) if target == name else [target]:
            setattr(self.model.leaves[leaf], key, value)

    @rule(pattern=st.sampled_from(["*", "w", "[bk]", "n*"]), freeze=st.booleans())
    def freeze(self, pattern, freeze):
        (self.world.params.freeze if freeze else self.world.params.unfreeze)(pattern)
        for p in self.world.params.select(pattern):
            for leaf in self.model.parts(p.name):
                self.model.leaves[leaf].trainable = not freeze

    @rule(index=st.integers(0, 2), edit=st.sampled_from(EDITS))
    def edit_group(self, index, edit):
        key, value = edit
        index %= len(self.model.groups)
        self.world.opt.param_groups[index][key] = as_value(key, value, self.world.clips)
        self.model.groups[index][key] = value

    @precondition(lambda self: len(self.model.groups) == len(GROUPS))
    @rule(edits=st.lists(st.sampled_from(EDITS), max_size=2))
    def add_group(self, edits):
        inherited = {key: GROUP_VALUES[key][0] for key in GROUP_VALUES}
        inherited |= {"learning_rate": 1.0, "rescale_grad": 1.0, "momentum": 0.9}
        group = {"params": ["late"], **dict(edits)}
        self.world.opt.add_param_group(as_group(group, self.world.params, self.world.clips))
        self.model.groups.append({**inherited, **group})
        late = self.model.leaves["late"]
        late.state, late.steps = {"velocity": np.zeros_like(late.value)}, 0

    @precondition(lambda self: self.world.schedule is None)
    @rule(rate=st.sampled_from([0.0, 0.05, 0.1, 1.0]))
    def set_rate(self, rate):
        self.world.opt.set_lr(rate)
        self.model.learning_rate = rate

    @rule(base=st.sampled_from([None, 0.2, 0.5]))
    def set_schedule(self, base):
        before = self.world.schedule
        self.world.schedule = None if base is None else nb.optimizer.lr.StepDecay(base, 2, 0.5)
        self.world.opt.set_lr_scheduler(self.world.schedule)
        self.model.schedule = None if base is None else (base, 0)
        if base is not None:
            self.model.learning_rate = base
        if before is not None:
            before.step(9)  # drives nothing any more

    @precondition(lambda self: self.world.schedule is not None)
    @rule(epoch=st.sampled_from([None, None, 0, 7]))
    def step_schedule(self, epoch):
        self.world.schedule.step(epoch)
        base, last = self.model.schedule
        self.model.schedule = base, last + 1 if epoch is None else epoch
        expected = self.model.rate_at(self.model.schedule[1])
        assert abs(self.world.opt.get_lr() - expected) <= 1e-15 * expected
        self.model.learning_rate = self.world.opt.get_lr()

    @rule(name=st.sampled_from([None, "opt", *SHAPES]), zero=st.booleans())
    def clear_grad(self, name, zero):
        whose = {None: self.world.params, "opt": self.world.opt}.get(name) or self.world.params[name]
        if zero and name == "opt":
            whose.zero_grad()
        else:
            whose.clear_grad(set_to_zero=zero)
        for one in {None: list(SHAPES), "opt": self.model.held()}.get(name, [name]):
            self.model.grads[one] = np.zeros_like(self.model.grads[one])
            self.model.present[one] &= zero
