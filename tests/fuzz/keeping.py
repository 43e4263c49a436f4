"""More rules of the machine: values, averages, copies, checkpoints, and calls that must be refused."""

import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

import nbopt as nb
from nbopt.errors import CheckpointError, StateDictError
from tests.fuzz.machine import Machine, names, parts, seeds
from tests.fuzz.model import SHAPES
from tests.fuzz.refusals import REFUSED
from tests.fuzz.world import AVERAGES
from tests.optimizer import frozen_bytes, refuses


class FullMachine(Machine):
    """All rules."""

    folder = None  # of the checkpoints; a subclass says it

    # --- values

    @rule(name=names, part=parts, seed=seeds, how=st.booleans())
    def set_value(self, name, part, seed, how):
        is_normed = name in self.model.dims
        target = name + part if is_normed else name
        p = self.world.params[target]
        value = np.asarray(2.0 * np.random.default_rng(seed).normal(size=p.shape), self.dtype)
        if part == "_v" and is_normed and seed % 4 == 0:
            value[0] = 0.0  # a zero slice: w is zero there, and does not move
        if how:
            p.value = value
        else:
            p.set_value(value)
        self.model.set_value(target, value)
        self.adopt(*([f"{name}_g"] if target in self.model.dims else []))

    @rule(space=st.sampled_from(["effective", "trainable"]), frozen=st.booleans(), seed=seeds)
    def from_vector(self, space, frozen, seed):
        params, model = self.world.params, self.model
        size = params.to_vector(space=space, frozen=frozen).size
        values = np.random.default_rng(seed).normal(size=size).astype(self.dtype)
        params.from_vector(values, space=space, frozen=frozen)
        targets = list(SHAPES)
        if space == "trainable":
            targets = [part for name in SHAPES for part in model.parts(name)]
        begin, norms = 0, []
        for target in targets:
            parts = model.parts(target) if target in SHAPES else [target]
            if not frozen and not any(model.leaves[part].trainable for part in parts):
                continue
            shape = params[target].shape
            end = begin + int(np.prod(shape, dtype=int))
            model.set_value(target, values[begin:end].reshape(shape))
            begin, norms = end, norms + ([f"{target}_g"] if target in model.dims else [])
        assert begin == size
        self.adopt(*norms)

    @rule(seed=seeds)
    def write_the_trainable_part(self, seed):
        params, model = self.world.params, self.model
        for name in model.leaves:
            value = np.asarray(np.random.default_rng(seed).normal(size=params[name].shape), self.dtype)
            offset = self.world.views[name].ctypes.data - params.trainable_flat.ctypes.data
            begin = offset // self.dtype.itemsize
            params.trainable_flat[begin : begin + value.size] = value.ravel()
            model.leaves[name].value = value
        params.recompose()
        self.adopt()

    @rule()
    def look_at_copies(self):
        params = self.world.params
        self.keep(params.numpy())
        self.keep({"values": params.to_vector(), "grads": params.to_vector("grad")})
        self.keep({"trainable": params.to_vector(space="trainable")})
        self.keep(self.world.opt.state_dict())

    # --- averages

    @rule(which=st.sampled_from(AVERAGES), times=st.sampled_from([1, 1, 3]))
    def average(self, which, times):
        average = getattr(self.world, which)
        take = average.step if which == "windows" else average.update
        for _ in range(times):
            if self.model.backup and self.model.backup[0] == which:
                with pytest.raises(RuntimeError):
                    take()
                continue
            take()
            self.model.take(which)

    @precondition(lambda self: self.model.backup is None)
    @rule(which=st.sampled_from(AVERAGES))
    def apply(self, which):
        self.put(which)
        self.model.apply(which)
        self.adopt()

    def put(self, which):
        """Apply; an average that has taken nothing in says so."""
        average = getattr(self.world, which)
        if self.model.has_taken(which):
            return average.apply()
        with pytest.warns(RuntimeWarning, match="taken no values in"):
            return average.apply()

    @precondition(lambda self: self.model.backup is not None)
    @rule()
    def restore_average(self):
        getattr(self.world, self.model.backup[0]).restore()
        self.model.restore()
        self.adopt()

    @precondition(lambda self: self.model.backup is None)
    @rule(which=st.sampled_from(AVERAGES))
    def apply_for_a_while(self, which):
        """The own values come back to the bit, w too."""
        before = self.world.params.fingerprint()
        with self.put(which):
            self.model.apply(which)
            self.adopt()
            self.nothing_else_has_changed()
            self.model.restore()
        assert self.world.params.fingerprint() == before
        self.adopt()

    @precondition(lambda self: self.model.backup is None and self.model.dims)
    @rule(averaged=st.sampled_from(["w_g", "w_v"]), seed=seeds)
    def average_a_part(self, averaged, seed):
        """Of g and v, one moves while the other holds its average."""
        for name in ("w_g", "w_v"):
            self.set_attribute("", name, ("do_model_average", name == averaged), False)
        self.average("exponentials", 1)
        self.apply("exponentials")
        self.write_the_trainable_part(seed)
        self.restore_average()

    # --- states

    @rule()
    def remember(self):
        held = self.model.backup and self.model.backup[0]
        states = {w: getattr(self.world, w).state_dict() for w in AVERAGES if w != held}
        states["opt"] = self.world.opt.state_dict()
        for state in states.values():
            self.keep(state)
        self.remembered.append((states, copy.deepcopy(self.model)))

    @precondition(lambda self: self.remembered)
    @rule(index=st.integers(0, 9), which=st.sampled_from(["opt", "opt", *AVERAGES]), fresh=st.booleans())
    def load_a_state(self, index, which, fresh):
        states, then = self.remembered[index % len(self.remembered)]
        if which not in states or (self.model.backup and self.model.backup[0] == which):
            return
        world = self.world
        if which != "opt":
            getattr(world, which).set_state_dict(states[which])
            self.model.take_average(then, which)
            return
        if states["opt"].keys() != world.opt.state_dict().keys():
            call = lambda: world.opt.set_state_dict(states["opt"])  # noqa: E731
            refuses(call, StateDictError, "fit", world.params, world.opt)
            return
        if fresh:
            self.replace_optimizer()
        self.world.opt.set_state_dict(states["opt"])
        self.model.take_optimizer(then)
        self.model.grad_norm = None

    def replace_optimizer(self):
        """Leave the optimizer for a new one over the same parameters."""
        old = self.world.opt
        old.set_lr_scheduler(None)
        state = old.state_dict()
        self.world.opt = self.optimizer(self.world.params, self.world.clips)
        if self.world.schedule is not None:
            self.world.opt.set_lr_scheduler(self.world.schedule)
        self.bystanders.append((old, frozen_bytes(state)))

    # --- copies and checkpoints

    @rule(how=st.sampled_from(["deepcopy", "pickle", "out of band"]), seed=seeds, go_on=st.booleans())
    def copy_all(self, how, seed, go_on):
        """A copy takes the same step, and what is left behind never changes again."""
        self.compare_twin(duplicate(self.world, how), seed, go_on)

    @precondition(lambda self: self.model.backup is None)
    @rule(seed=seeds, go_on=st.booleans())
    def resume(self, seed, go_on):
        """A program that starts anew from a checkpoint takes the same step."""
        path = self.folder / "resumed"
        nb.save(path, *self.world.all)
        self.checkpoints(path)
        twin = self.fresh()
        if self.world.schedule is not None:
            twin.schedule = nb.optimizer.lr.StepDecay(self.model.schedule[0], 2, 0.5)
            twin.opt.set_lr_scheduler(twin.schedule)
        nb.restore(path, *twin.all)
        for leaf in self.model.leaves.values():
            leaf.moved = -1  # the one thing that no checkpoint has
        self.compare_twin(twin, seed, go_on)

    def checkpoints(self, path):
        self.remembered_files.append((path.read_bytes(), copy.deepcopy(self.model)))

    def compare_twin(self, twin, seed, go_on):
        assert twin.picture() == self.world.picture()
        drawn = self.draw(seed)
        worlds = [self.world, twin]
        self.write("grad", ["drawn"] * len(SHAPES), drawn)
        twin.params.set_grads(drawn)
        twin.opt.step()
        stepped = self.follow(self.world.opt.step)
        assert stepped
        assert twin.picture() == self.world.picture()
        if go_on:
            worlds.reverse()
        left = worlds.pop()
        self.world = worlds.pop()
        self.old.append((left, left.picture()))

    @precondition(lambda self: self.remembered_files)
    @rule(index=st.integers(0, 9), averages=st.booleans())
    def restore(self, index, averages):
        """Into the same objects; what does not fit changes nothing."""
        world, model = self.world, self.model
        content, then = self.remembered_files[index % len(self.remembered_files)]
        path = self.folder / "again"
        path.write_bytes(content)
        things = world.all if averages else (world.params, world.opt)
        if model.backup is not None:
            refuses(lambda: nb.restore(path, *things), RuntimeError, "restore()", world.params, world.opt)
            return
        fits = model.held() == then.held() and (model.schedule is None) == (then.schedule is None)
        if not fits:
            refuses(lambda: nb.restore(path, *things), CheckpointError, "restored", world.params, world.opt)
            return
        nb.restore(path, *things)
        model.take_parameters(then)
        model.take_optimizer(then)
        model.grad_norm = None
        for which in AVERAGES if averages else ():
            model.take_average(then, which)
        self.adopt()

    # --- what is refused

    @rule(call=st.sampled_from(sorted(REFUSED)), seed=seeds)
    def refused_call(self, call, seed):
        make, error = REFUSED[call]
        found = make(self, seed)
        if found is not None:
            world = self.world
            before = self.pictures()
            refuses(found, error, "", world.params, world.opt)
            assert self.pictures() == before

    def pictures(self):
        averages = [getattr(self.world, which) for which in AVERAGES]
        return [frozen_bytes(one.state_dict()) for one in averages if not one.is_applied]


def duplicate(world, how):
    if how == "deepcopy":
        return copy.deepcopy(world)
    if how == "pickle":
        return pickle.loads(pickle.dumps(world))
    buffers = []
    content = io.BytesIO()
    pickle.Pickler(content, protocol=5, buffer_callback=buffers.append).dump(world)
    return pickle.loads(content.getvalue(), buffers=[bytes(b.raw()) for b in buffers])
