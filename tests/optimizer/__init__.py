"""What the tests of optimizers share: a picture of all that an error must leave alone, and a twin."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nbopt as nb
from tests import oracle
from tests.oracle import Oracle, Param

RULES = {"Momentum": nb.optimizer.Momentum, "SGD": nb.optimizer.SGD}


def small(dtype="float64", seed=0, **attrs):
    """Three plain parameters, w (2, 3), b (3,) and k (2,), and gradients that are present and zero."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (2, 3), "b": (3,), "k": (2,)}
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)


def normed(dtype="float64", dim=0):
    """A weight-normed w (2, 3) and a plain b (3,)."""
    attrs = {"w": nb.WeightNormParamAttr(dim=dim)}
    values = {"w": [[3.0, 4.0, 0.0], [1.0, 2.0, 2.0]], "b": [1.0, 2.0, 3.0]}
    return nb.ParameterBuffer.from_arrays(values, attrs=attrs, dtype=dtype)


def gradients(params, seed=1):
    """One gradient per parameter, drawn in its dtype."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=p.shape).astype(params.dtype) for name, p in params.items()}


def parts(params):
    """Every parameter, and the g and v of those that have them."""
    return [q for p in params.values() for q in (p, p.weight_g, p.weight_v) if q is not None]


def frozen_bytes(state):
    """A state dictionary with its arrays as bytes, so that == compares bits."""
    return {
        key: (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for key, value in state.items()
    }


def picture(params, *opts):
    """Everything that a refused call leaves as it was; comparable with ==."""
    return {
        "values": params.fingerprint(),
        "sealed": params.is_sealed,
        "attributes": {
            p.name: (p.learning_rate, p.regularizer, p.need_clip, p.trainable, p.do_model_average)
            for p in parts(params)
        },
        "present": [p.has_grad for p in params.values()],
        "gradients": params.flat_grad.tobytes() if params.is_sealed else None,
        "states": [frozen_bytes(opt.state_dict()) for opt in opts],
        "groups": [[{**g, "params": list(g["params"])} for g in opt.param_groups] for opt in opts],
        "parameters": [opt.parameters for opt in opts],
    }


def refuses(call, error, words, params, *opts):
    """`call` raises exactly this kind of error, its message holds every word, and nothing has changed."""
    before = picture(params, *opts)
    with pytest.raises(error) as caught:
        call()
    after = picture(params, *opts)
    changed = [key for key in before if before[key] != after[key]]
    assert not changed, f"changed by a call that was refused: {changed}"
    missing = [word for word in words.split() if word not in str(caught.value)]
    assert not missing, f"{missing} not in the message: {caught.value}"
    return caught.value


def expand(prefix, values):
    """Rows of a table of cases: an id, and the case."""
    return [pytest.param(*case, id=f"{prefix}{key}") for key, case in values.items()]


# --- nbopt and the oracle side by side ------------------------------------------------------------


def as_decay(decay):
    """The package's form of an oracle's decay; a number, AdamW's, is one in both."""
    if decay is None or isinstance(decay, float):
        return decay
    return nb.regularizer.L1Decay(decay.l1) if decay.l1 else nb.regularizer.L2Decay(decay.l2)


def as_clip(clip):
    """The package's form of an oracle's clip."""
    match clip and clip.kind:
        case None:
            return None
        case "value":
            return nb.ClipGradByValue(clip.limit, clip.low)
        case "norm":
            return nb.ClipGradByNorm(clip.limit)
    name = {} if clip.group_name is None else {"group_name": clip.group_name}
    return nb.ClipGradByGlobalNorm(clip.limit, **name)


class Twin:
    """The same model in nbopt and in the oracle, stepped together and compared after every step.

    `attrs` are those of a parameter by name, `dims` the kept axis of each weight-normed one; `groups` and
    `options` are as in the oracle, with `Decay` and `Clip` objects. A `rescale_grad` may be in a group.
    `make` builds the package's optimizer where it is none of its own. `functions` are arguments that only
    the package takes; the attributes say the same to the oracle.
    """

    def __init__(
        self,
        rule,
        values,
        *,
        make=None,
        attrs=None,
        dims=None,
        groups=None,
        dtype="float64",
        functions=None,
        **options,
    ):
        self.rule, self.dims, self.dtype = rule, dict(dims or {}), np.dtype(dtype)
        self.clips = {}
        self.groups = [dict(group) for group in groups or [{"params": list(values)}]]
        self.options = {"learning_rate": 0.1, **options}
        self.params = nb.ParameterBuffer(dtype=dtype)
        self.reference = {}
        for name, value in values.items():
            value = np.asarray(value, dtype)
            attr = dict((attrs or {}).get(name, {}))
            if name in self.dims:
                self.reference |= oracle.weight_norm(name, value.astype(float), self.dims[name], **attr)
            else:
                self.reference[name] = Param(value.astype(float), **attr)
            attr.pop("decays", None)  # said by a function here
            attr |= {"initializer": nb.initializer.Assign(value)}
            attr["regularizer"] = as_decay(attr.get("regularizer"))
            kind = nb.ParamAttr
            if name in self.dims:
                kind, attr = nb.WeightNormParamAttr, attr | {"dim": self.dims[name]}
            self.params.create_parameter(value.shape, name, attr=kind(**attr))
        self.opt = (make or getattr(nb.optimizer, rule))(
            **{key: self.translated(key, value) for key, value in self.options.items()},
            **(functions or {}),
            parameters=[self.translated_group(group) for group in self.groups],
        )

    def translated(self, key, value):
        """A value of an option or of a group, as the package takes it; one object for one clip."""
        if key == "weight_decay":
            return as_decay(value)
        if key == "grad_clip":
            return self.clips.setdefault(id(value), (as_clip(value), value))[0]
        return [self.params[name] for name in value] if key == "params" else value

    def translated_group(self, group):
        return {key: self.translated(key, value) for key, value in group.items()}

    def edit(self, index, key, value):
        """Set one value of a group, on both sides."""
        self.groups[index][key] = value.item() if isinstance(value, np.generic) else value
        self.opt.param_groups[index][key] = self.translated(key, value)

    def step(self, grads):
        """One step of both; a gradient that is None or left out is absent."""
        self.opt.step(grads)
        options = {key: value for key, value in self.options.items() if key != "nonfinite"}
        rescale = options.pop("rescale_grad", 1.0)
        scaled, plain = {}, []
        for group in self.groups:
            factor = group.get("rescale_grad", rescale)
            plain.append({key: value for key, value in group.items() if key != "rescale_grad"})
            given = {name: grads.get(name) for name in group["params"]}
            scaled |= {name: None if g is None else factor * g for name, g in given.items()}
        twin = Oracle(
            self.rule, self.reference, groups=plain, composed=self.dims, storage=self.dtype, **options
        )
        twin.step(scaled)
        self.check(twin)

    def check(self, twin, rtol=1e-12, atol=1e-13):  # atol: elements that cancelled to nearly zero
        state = self.opt.state_dict()
        for name, param in self.reference.items():
            assert_allclose(self.params[name].value, param.value, rtol, atol, err_msg=name)
            assert state.get(f"{name}.step", 0) == param.steps
            for key, value in param.state.items():
                assert_allclose(state[f"{name}.{key}"], value, rtol, atol, err_msg=f"{name}.{key}")
        for name in self.dims:
            assert_allclose(self.params[name].value, twin.value(name), rtol, atol, err_msg=name)
