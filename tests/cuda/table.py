"""Optimizers of every kind, by name, that must leave the same bits on every device."""

import functools
import math

import nbopt as nb
from tests.cuda.played import Case

Attr, Normed = nb.ParamAttr, nb.WeightNormParamAttr
L1, L2 = nb.regularizer.L1Decay, nb.regularizer.L2Decay
GLOBAL, NORM, VALUE = nb.ClipGradByGlobalNorm, nb.ClipGradByNorm, nb.ClipGradByValue
NAN, INF = float("nan"), float("inf")
SINGLE, DOUBLE = ("float32",), ("float64",)


def momentum(**options):
    """Nesterov momentum under one clip of all, if nothing else is said."""
    options = {"use_nesterov": True, "weight_decay": 1e-3, "grad_clip": GLOBAL(1.0), **options}
    return functools.partial(nb.optimizer.Momentum, 0.05, 0.9, **options)


# --- rules of a user's


@nb.rule
def capped(param, grad, lr, cap=0.5):
    """No accumulator; literals, a branch and abs."""
    kept = cap if abs(grad) > cap else 0.25 * grad + 1e-3
    return param - lr * kept * (1 - 0.5 * grad)


@nb.rule
def heavy_ball(param, velocity, grad, lr, mu=0.9):
    """One accumulator."""
    velocity = mu * velocity + grad
    return param - lr * velocity, velocity


def warmed(step, lr, decay):
    """More than the rule's hyper-parameters, from the number of the step."""
    return lr * min(1.0, step / 3), decay, 1.0 / (step + decay)


@nb.rule(prepare=warmed)
def triple(param, mean, square, seen, grad, lr, decay, share=0.0):
    """Three accumulators and `prepare`; a root and a division."""
    mean = decay * mean + share * grad
    square = decay * square + (1 - decay) * grad * grad
    return param - lr * mean / (math.sqrt(square) + 0.01), mean, square, seen + 1


# --- edits


def freeze(step, params, opt):
    """Other parameters move in every step."""
    params["a"].trainable = step != 2
    params["b"].trainable = step == 3


def retune(step, params, opt):
    """Another value of everything that can be set between steps."""
    first, second = opt.param_groups
    if step == 2:
        opt.set_lr(0.01)
        first["weight_decay"], first["momentum"] = L1(0.01), 0.5
        second["grad_clip"], second["rescale_grad"] = VALUE(0.2), -0.25
        params["a"].learning_rate, params["b"].regularizer = 3.0, L2(0.5)
    if step == 3:
        first["grad_clip"], first["use_nesterov"] = second["grad_clip"], False
        second["learning_rate"] = 0.0
        params["a"].need_clip, params["c"].value = False, [1.0, -2.0, 0.0, 3.0]


def join(step, params, opt):
    """A group that comes later."""
    if step == 2:
        opt.add_param_group({"params": params["b"], "learning_rate": 2.0})


def empty_slice(step, params, opt):
    """A slice without a direction, at run time."""
    v = params["w"].weight_v
    if step == 2:
        values = v.numpy()
        values[1] = 0.0
        v.value = values


def freeze_halves(step, params, opt):
    """g, v or both stay."""
    for name in ("w", "t", "p"):
        params[name].weight_g.trainable = step not in (1, 3)
        params[name].weight_v.trainable = step not in (2, 3)


def schedule(parameters):
    """A schedule drives the rate; nothing else happens."""
    rate = nb.optimizer.lr.ExponentialDecay(0.1, 0.5)
    return nb.optimizer.SGD(rate, parameters=parameters)


# --- the table

FEW = {"a": (5, 7), "b": (130,), "c": (3,), "s": ()}
AWKWARD = {"a": (), "z": (1,), "m": (3,), "e": (0, 3), "l": (127,), "k": (128,), "j": (129,), "f": (2, 3, 5)}
WIDE = {"a": (9,), "b": (2, 66), "c": (4,)}
RULES = {
    "sgd": functools.partial(nb.optimizer.SGD, 0.1),
    "momentum": functools.partial(nb.optimizer.Momentum, 0.1, 0.8),
    "nesterov": functools.partial(nb.optimizer.Momentum, 0.1, 0.8, use_nesterov=True),
    "adam": functools.partial(nb.optimizer.Adam, 0.01),
    "amsgrad": functools.partial(nb.optimizer.Adam, 0.01, amsgrad=True),
    "adamw": functools.partial(nb.optimizer.AdamW, 0.01, weight_decay=0.1),
    "adamw amsgrad": functools.partial(nb.optimizer.AdamW, 0.01, weight_decay=0.1, amsgrad=True),
    "capped": functools.partial(nb.Optimizer, capped, 0.1),
    "heavy ball": functools.partial(nb.Optimizer, heavy_ball, 0.1),
    "triple": functools.partial(nb.Optimizer, triple, 0.1, decay=0.75),
}
USERS = ("capped", "heavy ball", "triple")
# What takes a power, in which the libraries of devices differ.
POWERS = [RULES[name] for name in ("adam", "amsgrad", "adamw", "adamw amsgrad")]
CLIPS = {
    "value": VALUE(0.5, -0.25),
    "value 0": VALUE(0.0),
    "norm": NORM(2.0),
    "norm 0": NORM(0.0),
    "norm inf": NORM(INF),
    "global": GLOBAL(1.0),
    "global 0": GLOBAL(0.0),
    "global inf": GLOBAL(INF),
    "global not reached": GLOBAL(1e6),
}
FORMS = {
    "rows": ((6, 9), 0),
    "wide rows": ((3, 301), 0),
    "columns": ((20, 6), 1),
    "whole": ((9, 5), None),
    "vector": ((7,), 0),
    "convolution": ((4, 3, 3, 3), 0),
    "convolution, inputs": ((4, 3, 3, 2), 1),
    "last axis": ((2, 3, 5), 2),
    "one slice": ((1, 33), 0),
}

CASES = {
    # Sizes: of arrays, of blocks, of many.
    "awkward sizes": Case(AWKWARD, momentum()),
    "one below a block": Case({"a": (4095,)}, momentum(), steps=1),
    "a block": Case({"a": (4096,), "b": (1,)}, momentum(), SINGLE, steps=1),
    "one above a block": Case({"a": (4097,), "b": (2,)}, momentum(), SINGLE, steps=1),
    "some blocks": Case(
        {"a": (8300,), "b": (4200,)}, momentum(), SINGLE, {"b": Attr(need_clip=False)}, steps=1
    ),
    "two blocks": Case({"a": (2, 2100)}, momentum(), DOUBLE, steps=1),
    "many": Case({f"p{i}": (i % 7,) for i in range(40)}, momentum(), SINGLE),
    "one number": Case({"s": ()}, momentum()),
    # Rules.
    **{
        name: Case(FEW, make, SINGLE if name in USERS else ("float32", "float64"), steps=3)
        for name, make in RULES.items()
    },
    "a schedule": Case(FEW, schedule, SINGLE),
    # Policies.
    **{f"clip by {name}": Case(WIDE, momentum(grad_clip=clip)) for name, clip in CLIPS.items()},
    "clips of groups": Case(
        {**WIDE, "d": (5,), "e": (6,)},
        momentum(),
        groups=[
            {"params": ["a", "c"], "rescale_grad": 0.3},
            {"params": ["e", "b"], "grad_clip": GLOBAL(0.5, group_name="other"), "weight_decay": L1(0.01)},
            {"params": ["d"], "grad_clip": NORM(0.1), "learning_rate": 0.5, "momentum": 0.5},
        ],
    ),
    "rescale factors under one clip": Case(
        {**WIDE, "d": (5,)},
        momentum(),
        SINGLE,
        {"a": Attr(need_clip=False)},
        groups=[
            {"params": ["a", "b"], "rescale_grad": 0.3},
            {"params": ["c"], "rescale_grad": -2.0},
            {"params": ["d"], "rescale_grad": 0.7},
        ],
    ),
    "no clip": Case(WIDE, momentum(grad_clip=None, rescale_grad=-2.0)),
    "need_clip": Case(WIDE, momentum(rescale_grad=0.5), attrs={"b": Attr(need_clip=False)}),
    "L1": Case(WIDE, momentum(weight_decay=L1(0.01)), attrs={"c": Attr(regularizer=L2(0.1))}),
    "L2": Case(WIDE, momentum(weight_decay=L2(0.01)), attrs={"c": Attr(regularizer=L1(0.1))}),
    "rates": Case(WIDE, momentum(), attrs={"a": Attr(learning_rate=2.0), "c": Attr(learning_rate=0.0)}),
    "frozen": Case(WIDE, momentum(), attrs={"b": Attr(trainable=False)}),
    "freezing": Case(WIDE, momentum(), edit=freeze, steps=3),
    "absent": Case(WIDE, momentum(), absent={1: {"a"}, 2: {"b", "c"}, 3: {"a", "b", "c"}}, steps=4),
    "absent, by Adam": Case(WIDE, RULES["adam"], SINGLE, absent={1: {"a"}, 2: {"b", "c"}}, steps=3),
    "shared": Case(WIDE, momentum(), SINGLE, shared=("b", "a")),
    "edits": Case(
        WIDE,
        momentum(),
        groups=[{"params": ["a"]}, {"params": ["b", "c"], "weight_decay": None}],
        edit=retune,
        steps=4,
    ),
    "a later group": Case(WIDE, momentum(), SINGLE, groups=[{"params": ["a", "c"]}], edit=join, steps=3),
    # Gradients that are not finite.
    **{
        f"{guard}, {number} in {name}{list(index)}": Case(
            WIDE, momentum(nonfinite=guard), SINGLE, spoilt={2: (name, index, number)}, steps=3
        )
        for guard in ("raise", "skip", "propagate")
        for name, index, number in (("a", (0,), NAN), ("b", (1, 65), INF), ("c", (3,), -INF))
    },
    "propagate without a norm": Case(
        WIDE, momentum(nonfinite="propagate", grad_clip=None), spoilt={2: ("b", (0, 64), NAN)}
    ),
    "ten skipped": Case(
        {"a": (2,)},
        momentum(nonfinite="skip"),
        SINGLE,
        spoilt=dict.fromkeys(range(1, 12), ("a", 1, NAN)),
        steps=12,
    ),
    "not finite where absent": Case(
        WIDE, momentum(), SINGLE, spoilt={1: ("b", (0, 0), NAN)}, attrs={"b": Attr(trainable=False)}
    ),
    # Exponents.
    "all huge": Case(WIDE, momentum(), DOUBLE, powers={"a": 1000, "b": 990, "c": 1010}),
    "all tiny": Case(
        WIDE, momentum(grad_clip=GLOBAL(1e-310)), DOUBLE, powers={"a": -1030, "b": -1000, "c": -1010}
    ),
    "huge and tiny": Case(WIDE, momentum(), DOUBLE, powers={"a": 1000, "b": -900, "c": 0}),
    "small and tiny": Case(WIDE, momentum(grad_clip=NORM(1e-200)), DOUBLE, powers={"a": -600, "b": -900}),
    "huge float32": Case(WIDE, momentum(), SINGLE, powers={"a": 120, "b": 116, "c": -110}),
    "subnormal float32": Case(
        WIDE, momentum(rescale_grad=1e30), SINGLE, powers={"a": -130, "b": -140, "c": -120}
    ),
    "subnormal factor": Case(
        WIDE, momentum(grad_clip=NORM(1e-3)), SINGLE, powers={"a": 116, "b": 120, "c": 0}
    ),
    "subnormal factor, float64": Case(
        WIDE, momentum(grad_clip=GLOBAL(1e-300)), DOUBLE, powers={"a": 60, "b": 40, "c": 0}
    ),
    # Weight norm.
    **{
        name: Case({"w": shape}, momentum(), attrs={"w": Normed(dim)}) for name, (shape, dim) in FORMS.items()
    },
    "pieces": Case({"w": (2, 4099)}, momentum(), SINGLE, {"w": Normed(0)}, steps=1),
    "pieces of all": Case({"w": (70, 71)}, momentum(), DOUBLE, {"w": Normed(None)}, steps=1),
    "pieces of columns": Case({"w": (2, 2, 1025)}, momentum(), SINGLE, {"w": Normed(1)}, steps=1),
    "a tile of two parts": Case({"w": (259, 5)}, momentum(), SINGLE, {"w": Normed(1)}),
    "a tile of two parts, inner": Case({"w": (257, 2, 3)}, momentum(), DOUBLE, {"w": Normed(1)}, steps=1),
    "wide tiles": Case({"w": (3, 259)}, momentum(), SINGLE, {"w": Normed(1)}),
    "normed and plain": Case(
        {"w": (6, 9), "b": (11,), "t": (9, 4), "c": (3,)},
        momentum(weight_decay=L1(0.01)),
        attrs={
            "w": Normed(0, learning_rate=2.0),
            "t": Normed(1, regularizer=L2(0.1)),
            "c": Attr(need_clip=False),
        },
        absent={2: {"t"}},
        steps=3,
    ),
    "normed by Adam": Case(
        {"w": (6, 9), "t": (5, 3), "b": (4,)}, RULES["adam"], SINGLE, {"w": Normed(0), "t": Normed(1)}
    ),
    **{
        f"normed, clip by {name}": Case(
            {"w": (4, 5), "t": (5, 3)}, momentum(grad_clip=clip), SINGLE, {"w": Normed(0), "t": Normed(1)}
        )
        for name, clip in CLIPS.items()
        if name in ("value", "norm", "global 0")
    },
    "a zero slice": Case({"w": (3, 5)}, momentum(), attrs={"w": Normed(0)}, edit=empty_slice, steps=3),
    "frozen halves": Case(
        {"w": (4, 5), "t": (7, 3), "p": (1, 4100)},
        momentum(),
        SINGLE,
        {"w": Normed(0), "t": Normed(1), "p": Normed(None)},
        edit=freeze_halves,
        steps=4,
    ),
    **{
        f"normed, {guard}": Case(
            {"w": (4, 5), "t": (7, 3)},
            momentum(nonfinite=guard),
            SINGLE,
            {"w": Normed(0), "t": Normed(1)},
            spoilt={1: ("t", (6, 2), NAN), 2: ("w", (0, 0), INF)},
            steps=3,
        )
        for guard in ("raise", "skip", "propagate")
    },
    **{
        f"normed, values 2**{values}, gradients 2**{powers}": Case(
            {"w": (3, 5), "t": (5, 3)},
            momentum(),
            dtypes,
            {"w": Normed(0), "t": Normed(1)},
            values=dict.fromkeys("wt", values),
            powers=dict.fromkeys("wt", powers),
        )
        for dtypes, values, powers in (
            (DOUBLE, 600, 0),
            (DOUBLE, -600, 500),
            (DOUBLE, 0, 700),
            (DOUBLE, 0, -700),
            (SINGLE, 100, 0),
            (SINGLE, -100, 90),
            (SINGLE, 0, -120),
        )
    },
}
EACH = [(name, dtype) for name, case in CASES.items() for dtype in case.dtypes]
