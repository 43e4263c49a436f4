"""The model: all that parameters, an optimizer, a schedule and two averages remember, in plain Python.

A step is formed in float64 by the oracle, from the bits that the package has, and compared with what the
package makes of them; the model then takes these bits over. So a bound holds for each step by itself, and
everything that is no step is compared bit for bit.
"""

import copy
import dataclasses
import math

import numpy as np

from tests import oracle
from tests.averaging import Exponential, Window
from tests.oracle import Decay, Oracle, Param

SHAPES = {"w": (2, 3), "b": (3,), "k": (2, 2), "none": (0, 2), "late": ()}
GROUPS = [["w", "b", "none"], ["k"]]  # "late" comes with add_param_group
DIM = 0
LONGEST_ROW = 10  # refused steps, then skip raises
WINDOW = (0.5, 2, 4)
DECAY = 0.75
# Errors of a step, in units in the last place of the largest term. In float64 the oracle rounds as much, and
# d.d - (v.d)^2 may cancel; in float32 each of some ten operations is rounded once.
ULPS = {np.dtype("float64"): 2000, np.dtype("float32"): 16}

STEPPED, REFUSED, RAISED = "stepped", "refused", "raised"


@dataclasses.dataclass(eq=False)
class Leaf(Param):
    """One array that moves, in the storage dtype."""

    do_model_average: bool = True
    moved: int = -1  # by the last step; -1 before any


class Model:
    """See above. `values`: of the weights by name; with weight norm, w is one."""

    def __init__(self, values, normed, guard, learning_rate, groups):
        self.dtype = next(iter(values.values())).dtype
        self.dims = {"w": DIM} if normed else {}
        self.guard = guard
        self.learning_rate, self.schedule = learning_rate, None  # (base, epoch)
        self.groups = groups
        self.leaves, self.composed = {}, {}
        for name, value in values.items():
            if name in self.dims:
                parts = oracle.weight_norm(name, value, self.dims[name])
                self.leaves |= {leaf: Leaf(part.value, do_model_average=True) for leaf, part in parts.items()}
                self.composed[name] = value.copy()
            else:
                self.leaves[name] = Leaf(value.copy())
        self.grads = {name: np.zeros_like(value) for name, value in values.items()}
        self.present = dict.fromkeys(values, True)
        self.steps = self.skipped = self.row = 0
        for leaf in self.leaves.values():
            leaf.state["velocity"] = np.zeros_like(leaf.value)
        self.windows = {name: Window(leaf.value, *WINDOW) for name, leaf in self.leaves.items()}
        self.exponentials = {name: Exponential(leaf.value) for name, leaf in self.leaves.items()}
        self.backup = None  # of what averages stand in place of
        self.grad_norm = None

    # --- names

    def parts(self, name):
        """The arrays that move for a weight."""
        return [f"{name}_g", f"{name}_v"] if name in self.dims else [name]

    def owner(self, leaf):
        return next(name for name in self.grads if leaf in self.parts(name))

    def held(self):
        """The weights that the optimizer moves."""
        return [name for group in self.groups for name in group["params"]]

    def value(self, name):
        return self.composed[name] if name in self.dims else self.leaves[name].value

    # --- values

    def compose(self, name):
        """What w must be, and how far from it rounding may bring it."""
        g, v = (self.leaves[part].value.astype(float) for part in self.parts(name))
        found = oracle.compose(v, g, self.dims[name])
        return found, 4 * np.finfo(self.dtype).eps * np.abs(found)

    def set_value(self, name, value):
        """Of a weight, or of a g or v; w is the caller's to adopt."""
        if name in self.dims:
            for leaf, part in oracle.weight_norm(name, value, self.dims[name]).items():
                self.leaves[leaf].value = part.value
        else:
            self.leaves[name].value = value.copy()

    def set_grad(self, name, grad):
        """None makes it absent."""
        self.present[name] = grad is not None
        self.grads[name] = np.zeros_like(self.grads[name]) if grad is None else grad.copy()

    # --- steps

    def begin(self):
        """What a step does before it moves anything: whether it is one, and what it takes."""
        leaves = [leaf for name in self.held() for leaf in self.parts(name)]
        for name in self.held():
            is_read = any(self.leaves[leaf].trainable for leaf in self.parts(name))
            if is_read and self.grads[name].any():
                self.present[name] = True
        active = [leaf for leaf in leaves if self.leaves[leaf].trainable and self.present[self.owner(leaf)]]
        bad = [leaf for leaf in active if not np.isfinite(self.grads[self.owner(leaf)]).all()]
        refused = bool(bad) and self.guard != "propagate"
        for leaf in leaves:
            self.leaves[leaf].moved = int(leaf in active and not refused)
        if not refused:
            self.steps, self.row = self.steps + 1, 0
            return STEPPED, active
        self.grad_norm = None
        self.skipped, self.row = self.skipped + 1, self.row + 1
        if self.guard == "raise" or self.row == LONGEST_ROW:
            self.row = 0
            return RAISED, []
        return REFUSED, []

    def move(self):
        """What the step makes of the arrays that move: value and velocity, each with a bound of its error."""
        groups, scaled = [], {}
        for group in self.groups:
            groups.append({key: value for key, value in group.items() if key != "rescale_grad"})
            for name in group["params"]:
                with np.errstate(invalid="ignore"):  # 0 * inf
                    grad = group["rescale_grad"] * self.grads[name].astype(float)
                scaled[name] = grad if self.present[name] else None
        exact = {
            name: Param(
                leaf.value.astype(float),
                leaf.learning_rate,
                leaf.regularizer,
                leaf.need_clip,
                leaf.trainable,
                state={key: value.astype(float) for key, value in leaf.state.items()},
                steps=leaf.steps,
            )
            for name, leaf in self.leaves.items()
        }
        with np.errstate(all="ignore"):  # under propagate, NaN and Inf are what is meant
            twin = Oracle(
                "Momentum",
                exact,
                self.learning_rate,
                composed=self.dims,
                groups=groups,
                storage=self.dtype,
            )
            whole = twin._backward(scaled)
            clipped = twin._clip(whole)
            terms = {name: self._terms(name, scaled, whole, clipped) for name in clipped}
            self.grad_norm = float(oracle.norm(whole.values())) if whole else 0.0
            twin.step(scaled)
        unit = ULPS[self.dtype] * np.finfo(self.dtype).eps
        found = {}
        for name, grad in terms.items():
            old, new = self.leaves[name], exact[name]
            group = next(group for group in self.groups if self.owner(name) in group["params"])
            rate = self.learning_rate * group["learning_rate"] * old.learning_rate
            velocity = np.max(np.abs(old.state["velocity"]), initial=0.0) + grad
            value = np.max(np.abs(old.value), initial=0.0) + 2 * rate * velocity
            found[name] = new.value, unit * value, new.state["velocity"], unit * velocity
        return found

    def _terms(self, name, scaled, whole, clipped):
        """The largest of what is added up to the gradient that a rule gets."""
        owner, leaf = self.owner(name), self.leaves[name]
        group = next(group for group in self.groups if owner in group["params"])
        decay = leaf.regularizer or group["weight_decay"] or Decay()
        largest = np.max(np.abs(clipped[name]), initial=0.0)
        if owner in self.dims:  # dv is a difference
            g, v = (self.leaves[part].value.astype(float) for part in self.parts(owner))
            norm = oracle.slice_norm(v, self.dims[owner])
            alpha = np.abs(g) / np.where(norm > 0, norm, 1.0)
            before = np.max(alpha * np.abs(scaled[owner])) + np.max(np.abs(scaled[owner]))
            clip, of_leaf = group["grad_clip"], np.max(np.abs(whole[name]))
            if clip is None or clip.kind == "value" or of_leaf == 0:
                largest = max(largest, before)
            else:
                largest = max(largest, before * min(1.0, largest / of_leaf))
        return largest + decay.l1 + decay.l2 * np.max(np.abs(leaf.value), initial=0.0)

    # --- averages

    def take(self, which):
        """One update of an average."""
        for name, leaf in self.leaves.items():
            if which == "exponentials":
                if leaf.do_model_average:
                    self.exponentials[name].update(leaf.value, DECAY)
                continue
            moved = leaf.moved if leaf.moved >= 0 else leaf.trainable and self.present[self.owner(name)]
            if leaf.do_model_average and moved:
                self.windows[name].step(leaf.value)

    def apply(self, which):
        """Put averages in place of values; w is the caller's to adopt."""
        found = getattr(self, which)
        chosen = [name for name in self.has_taken(which) if self.leaves[name].do_model_average]
        self.backup = which, {name: self.leaves[name].value for name in chosen}
        for name in chosen:
            self.leaves[name].value = np.asarray(found[name].average(self.leaves[name].value))

    def has_taken(self, which):
        """The names of what an average has values of."""
        if which == "windows":
            return [name for name, one in self.windows.items() if one.open or one.closed]
        return [name for name, one in self.exponentials.items() if one.weight != 0.0]

    def restore(self):
        """Put the values back; w is the caller's to adopt."""
        _, values = self.backup
        self.backup = None
        for name, value in values.items():
            self.leaves[name].value = value

    # --- what is remembered

    def optimizer_state(self):
        """The state dictionary, without the schedule's entries."""
        found = {
            "rule": "momentum",
            "learning_rate": self.learning_rate,
            "step_count": self.steps,
            "steps_skipped": self.skipped,
            "steps_skipped_in_a_row": self.row,
        }
        for name in self.held():
            for leaf in self.parts(name):
                found[f"{leaf}.velocity"] = self.leaves[leaf].state["velocity"]
                found[f"{leaf}.step"] = self.leaves[leaf].steps
        return found

    def average_state(self, which):
        found = {}
        for name, one in getattr(self, which).items():
            found |= one.state(name)
        return found

    def take_optimizer(self, other):
        """What loading a state of `other` brings."""
        self.steps, self.skipped, self.row = other.steps, other.skipped, other.row
        self.learning_rate = other.learning_rate
        if self.schedule is not None:
            self.schedule = self.schedule[0], other.schedule[1]
        for name in self.held():
            for leaf in self.parts(name):
                self.leaves[leaf].state = copy.deepcopy(other.leaves[leaf].state)
                self.leaves[leaf].steps = other.leaves[leaf].steps

    def take_average(self, other, which):
        setattr(self, which, copy.deepcopy(getattr(other, which)))

    def take_parameters(self, other):
        """What restoring a checkpoint brings: values, no gradients, and which are absent; not w."""
        for name, leaf in self.leaves.items():
            leaf.value = other.leaves[name].value.copy()
        for name in self.grads:
            self.set_grad(name, np.zeros_like(self.grads[name]))
            self.present[name] = other.present[name]

    def rate_at(self, epoch):
        """Of the one schedule that is played: halved every second step."""
        return self.schedule[0] * 0.5 ** (epoch // 2)


def is_close(got, expected, bound):
    """Within a bound where both are finite; not finite in the same places."""
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return False
    if not math.isfinite(np.max(bound, initial=0.0)):
        return True  # an infinite term
    difference = np.abs(np.where(finite, got, 0.0).astype(float) - np.where(finite, expected, 0.0))
    return bool(np.all(difference <= np.where(finite, bound, 0.0)))
