"""Trees of JAX in and out of a buffer, trained beside the same trees under optax."""

import collections
import dataclasses
import functools

import numpy as np
import pytest

import nbopt as nb

jax = pytest.importorskip("jax", reason="jax is not installed")
jnp = jax.numpy
ravel_pytree = pytest.importorskip("jax.flatten_util", reason="jax is not installed").ravel_pytree

pytestmark = pytest.mark.conformance

Layer = collections.namedtuple("Layer", ["weight", "bias"])


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scale", "layers"], meta_fields=["activation"]
)
@dataclasses.dataclass
class Model:
    scale: jax.Array
    layers: list
    activation: str = "tanh"


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def model():
    return {
        "net": Model(jnp.float32(0.5), [Layer(draw(4, 3), draw(3)), Layer(draw(3, 2), None)]),
        "head": collections.OrderedDict(z=draw(2), a=(draw(1), draw(2, seed=1))),
    }


NAMES = ["head.z", "head.a.0", "head.a.1", "net.scale", "net.layers.0.weight", "net.layers.0.bias"]
NAMES.append("net.layers.1.weight")


def loss(tree, x):
    for layer in tree["net"].layers:
        x = jnp.tanh(x @ layer.weight + (0 if layer.bias is None else layer.bias))
    head = tree["head"]
    return jnp.square(tree["net"].scale * x + head["z"] * head["a"][0] + head["a"][1]).mean()


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (type(a), a.dtype, a.shape, a.sharding) == (type(b), b.dtype, b.shape, b.sharding)
        assert np.array_equal(a, b)


def test_there_and_back():
    tree = model()
    params = nb.jax.from_pytree(tree)
    assert list(params) == NAMES
    assert params.dtype == np.float32
    assert np.array_equal(params.to_vector(), ravel_pytree(tree)[0])
    same(nb.jax.to_pytree(params, tree), tree)


def test_what_comes_out_does_not_change():
    tree = {"w": draw(64)}
    params = nb.jax.from_pytree(tree)
    out = nb.jax.to_pytree(params, tree)
    params["w"].value += 1
    same(out, tree)


def test_gradients_by_name():
    tree = model()
    params = nb.jax.from_pytree(tree)
    grads = jax.grad(loss)(tree, draw(8, 4))
    nb.jax.set_grads(params, grads)
    assert np.array_equal(params.to_vector("grad"), ravel_pytree(grads)[0])


def test_training_beside_optax():
    """Both round each operation once, in another order; 50 steps stay within 16 units in the last place."""
    optax = pytest.importorskip("optax", reason="optax is not installed")
    ours, theirs, value_and_grad = model(), model(), jax.jit(jax.value_and_grad(loss))
    params = nb.jax.from_pytree(ours)
    opt = nb.optimizer.Momentum(0.05, 0.9, params, use_nesterov=True, grad_clip=nb.ClipGradByGlobalNorm(0.5))
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.05, 0.9, nesterov=True))
    state, losses = transform.init(theirs), []
    for t in range(50):
        x = draw(8, 4, seed=t)
        value, grads = value_and_grad(ours, x)
        nb.jax.set_grads(params, grads)
        opt.step()
        ours = nb.jax.to_pytree(params, ours)
        losses.append(float(value))
        _, grads = value_and_grad(theirs, x)
        updates, state = transform.update(grads, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    vectors = [ravel_pytree(tree)[0] for tree in (ours, theirs)]
    assert np.max(np.abs(vectors[0] - vectors[1])) <= 16 * np.spacing(np.max(np.abs(vectors[1])))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2


def test_absent_gradients_are_skipped():
    params = nb.jax.from_pytree({"a": draw(2), "b": draw(2), "c": draw(2)})
    before = params.numpy()
    nb.jax.set_grads(params, {"a": draw(2), "b": None})
    nb.optimizer.SGD(0.1, params, weight_decay=0.5).step()
    moved = {name for name, value in params.numpy().items() if not np.array_equal(value, before[name])}
    assert moved == {"a"}


def test_shapes_stand_for_arrays():
    tree = model()
    params = nb.jax.from_pytree(tree)
    shapes = jax.eval_shape(model)
    same(nb.jax.to_pytree(params, shapes), tree)


def test_leaves_that_are_left_out():
    tree = {"w": draw(2), "count": jnp.int32(3), "key": jax.random.key(0), "half": jnp.bfloat16(1)}
    attrs = {"*": False, "w": nb.ParamAttr(learning_rate=2.0)}
    params = nb.jax.from_pytree(tree, attrs=attrs)
    assert list(params) == ["w"]
    params["w"].value += 1
    out = nb.jax.to_pytree(params, tree)
    assert out["count"] is tree["count"]
    assert out["key"] is tree["key"]
    assert np.array_equal(out["w"], tree["w"] + 1)


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [(jnp.int32(1), "int32"), (jnp.bfloat16(1), "bfloat16"), (jnp.complex64(1), "complex64")],
)
def test_leaves_that_are_refused(leaf, kind):
    with pytest.raises(TypeError, match=rf"leaf 'a\.0' is {kind}; .*attrs={{'a\.0': False}}"):
        nb.jax.from_pytree({"a": [leaf]})


def test_float64():
    with jax.enable_x64(True):
        tree = {"w": jnp.arange(3, dtype=jnp.float64), "b": draw(2)}
        params = nb.jax.from_pytree(tree)
        assert params.dtype == np.float64
        same(nb.jax.to_pytree(params, tree), tree)


def test_tracers_are_told():
    params = nb.jax.from_pytree({"w": draw(2)})
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda tree: nb.jax.set_grads(params, tree))({"w": draw(2)})


def test_device_and_sharding_are_kept():
    mesh = jax.make_mesh((1,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    tree = {"w": jax.device_put(draw(4), sharding)}
    same(nb.jax.to_pytree(nb.jax.from_pytree(tree), tree), tree)
