"""What one run has: parameters, an optimizer, a schedule and two averages; and what values may become."""

import dataclasses

import numpy as np

import nbopt as nb
from tests.optimizer import as_clip, as_decay, frozen_bytes
from tests.oracle import Clip, Decay

NAN, INF = float("nan"), float("inf")
AVERAGES = ["windows", "exponentials"]
NAMED = Clip("global", 0.5, group_name="named")
SHARED = Clip("global", 1.0)  # one object, so one norm over all groups that have it
CLIPS = [
    None,
    SHARED,
    NAMED,
    Clip("norm", 0.75),
    Clip("norm", 0.0),
    Clip("value", 0.5, -0.25),
    Clip("norm", INF),
]
DECAYS = [None, Decay(l2=0.1), Decay(l1=0.05), Decay()]
RATES = [0.0, 0.5, 1.0, 2.0]
GROUP_VALUES = {
    "learning_rate": RATES,
    "weight_decay": DECAYS[:3],
    "grad_clip": CLIPS,
    "rescale_grad": [1.0, 0.5, -2.0, 0.0],
    "momentum": [0.0, 0.5, 0.9],
    "use_nesterov": [False, True],
}
EDITS = [(key, value) for key, values in GROUP_VALUES.items() for value in values]
ATTRIBUTES = {
    "learning_rate": RATES,
    "regularizer": DECAYS[:3],
    "need_clip": [False, True],
    "trainable": [False, True],
    "do_model_average": [False, True],
}
SETTINGS = [(key, value) for key, values in ATTRIBUTES.items() for value in values]


@dataclasses.dataclass
class World:
    """All that one run has."""

    params: nb.ParameterBuffer
    opt: nb.optimizer.Momentum
    windows: nb.ModelAverage
    exponentials: nb.ExponentialMovingAverage
    clips: list  # the objects that stand for CLIPS; a copy has copies, and one norm is that of one object
    schedule: nb.optimizer.lr.LRScheduler | None = None

    def __post_init__(self):
        self.look()

    def look(self):
        """Hand out the views of this world, once and for all; fill its padding with what spoils any sum."""
        params = self.params
        self.views = {p.name: p.value for q in params.values() for p in (q, *q._moved)}
        self.grads = {name: p.grad for name, p in params.items()}
        self.padding = []
        for array in (params._seal().data, params.flat_grad):
            spare = np.ones(array.size, bool)
            begin = array.ctypes.data
            for view in [*self.views.values(), *self.grads.values()]:
                start = (view.ctypes.data - begin) // array.itemsize
                if 0 <= start < array.size:
                    spare[start : start + view.size] = False
            self.padding.append((array, np.flatnonzero(spare)))

    def __reduce__(self):
        return World, (self.params, self.opt, self.windows, self.exponentials, self.clips, self.schedule)

    @property
    def all(self):
        return self.params, self.opt, self.windows, self.exponentials

    def picture(self):
        """Every bit of it but gradients."""
        states = [] if self.windows.is_applied else [self.windows.state_dict()]
        states += [] if self.exponentials.is_applied else [self.exponentials.state_dict()]
        absent = [name for name, p in self.params.items() if not p.has_grad]
        return self.params.fingerprint(), absent, [frozen_bytes(s) for s in (self.opt.state_dict(), *states)]


def as_group(group, params, clips):
    """A group of the model as the package takes it."""
    return {key: as_value(key, value, clips, params) for key, value in group.items()}


def new_clips():
    return [as_clip(clip) for clip in CLIPS]


def as_value(key, value, clips=(), params=None):
    if key in ("weight_decay", "regularizer"):
        return as_decay(value)
    if key == "grad_clip":
        return next(one for one, clip in zip(clips, CLIPS, strict=True) if clip is value)
    return [params[name] for name in value] if key == "params" else value


def assert_bits(got, need, name):
    assert got.dtype == need.dtype, name
    assert got.shape == need.shape, name
    assert got.tobytes() == need.tobytes(), (name, got, need)
