"""The demonstration from Python: network, training and pictures, without and with weight norm."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbopt as nb
from nbopt import demo
from nbopt.demo import pictures, training

for package in ("sklearn", "tqdm", "matplotlib", "threadpoolctl"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def short() -> demo.DemoResult:
    return demo.run(epochs=3, quiet=True)


@pytest.fixture(scope="module")
def both() -> demo.Comparison:
    return demo.compare(epochs=3, quiet=True)


either = pytest.mark.parametrize("weight_norm", [False, True], ids=["plain", "weight norm"])


def image(path: Path) -> np.ndarray:
    """The pixels of a picture in eight bits."""
    from matplotlib.image import imread

    return np.rint(255 * imread(path)[..., :3]).astype(np.uint8)


@either
def test_default_run_reads_the_held_out_fifth(weight_norm: bool) -> None:
    result = demo.run(weight_norm=weight_norm, quiet=True)
    assert result.accuracy >= 0.97
    assert result.history.train_accuracy[-1] >= 0.99


def test_split_holds_out_a_stratified_fifth() -> None:
    digits = demo.Digits.load()
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert len(digits.test_labels) == math.ceil(1797 / 5)
    assert digits.train_images.dtype == np.float32
    counts = np.bincount(digits.test_labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_history_tells_what_happened(short: demo.DemoResult) -> None:
    history = short.history
    assert len(history.train_loss) == len(history.test_accuracy) == 3
    steps = 3 * math.ceil(1437 / 32)
    assert len(history.grad_norm) == len(history.weight_grad_norm) == steps
    assert short.opt.step_count == steps
    assert short.accuracy == history.test_accuracy[-1]
    assert history.train_loss[-1] < history.train_loss[0]
    # The norm over all gradients, the optimizer's own, is no less than that over the weights.
    assert np.all(history.grad_norm >= history.weight_grad_norm * (1 - 1e-5))
    assert 0.0 < history.clipped_share < 1.0


def test_biases_have_their_own_policy(short: demo.DemoResult) -> None:
    assert list(short.params) == [f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]
    for name, parameter in short.params.items():
        bias = name.endswith(".bias")
        assert parameter.learning_rate == (2.0 if bias else 1.0)
        assert parameter.need_clip is not bias
        assert (parameter.regularizer == nb.regularizer.L2Decay(0.0)) is bias


@either
def test_hand_written_gradients_are_right(weight_norm: bool) -> None:
    params = nb.ParameterBuffer(dtype="float64", seed=3)
    network = demo.Network(params, widths=(5, 7, 6, 4), weight_norm=weight_norm)
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(9, 5)), rng.integers(0, 4, size=9)
    for bias in network.biases:  # away from the kink of ReLU, where a dead row would sit
        bias.value[:] = rng.normal(scale=0.3, size=bias.shape)
    loss = network.backward(network.forward(images), labels)
    assert loss == pytest.approx(network.evaluate(images, labels)[0], rel=1e-12)
    parts = [q for p in params.values() for q in ((p.weight_v, p.weight_g) if p.weight_v else (p,))]
    assert len(parts) == (8 if weight_norm else 6)
    for part in parts:
        kept, h = part.numpy(), 1e-6
        for index in np.ndindex(part.shape):
            numeric = 0.0
            for sign in (1.0, -1.0):
                moved = kept.copy()
                moved[index] += sign * h
                part.set_value(moved)
                numeric += sign * network.evaluate(images, labels)[0] / (2.0 * h)
            part.set_value(kept)
            assert part.grad[index] == pytest.approx(numeric, rel=1e-5, abs=1e-8), (part.name, index)


def test_weight_norm_is_on_the_hidden_layers_alone() -> None:
    plain, normalized = (nb.ParameterBuffer(seed=0) for _ in range(2))
    demo.Network(plain)
    demo.Network(normalized, weight_norm=True)
    assert list(plain) == list(normalized)
    kinds = [row.kind for row in normalized.summary().rows]
    assert kinds == ["weight norm, dim=1", "plain", "weight norm, dim=1", "plain", "plain", "plain"]
    assert [normalized[f"fc{i}.weight"].weight_g.shape for i in (1, 2)] == [(1, 128), (1, 64)]
    for name, parameter in normalized.items():  # both start from what the initializer draws
        np.testing.assert_allclose(parameter.numpy(), plain[name].numpy(), rtol=1e-6)


def test_decay_is_the_same_with_and_without_weight_norm() -> None:
    """Without gradients the decay is all that moves a weight. It leaves v alone, whose length is free."""
    changes = []
    for weight_norm in (False, True):
        params = nb.ParameterBuffer(seed=0)
        weights = demo.Network(params, weight_norm=weight_norm).weights
        directions = [w.weight_v for w in weights if w.weight_v]
        before, kept = params.numpy(), [v.numpy() for v in directions]
        nb.optimizer.Momentum(0.1, 0.9, parameters=params, weight_decay=0.5).step()
        changes.append({name: after - before[name] for name, after in params.numpy().items()})
        for v, old in zip(directions, kept, strict=True):
            np.testing.assert_array_equal(v.numpy(), old)
    assert np.abs(changes[0]["fc1.weight"]).max() > 0.01
    for name, change in changes[0].items():
        np.testing.assert_allclose(changes[1][name], change, atol=1e-6)


@either
def test_history_holds_the_norm_that_the_clip_limits(weight_norm: bool) -> None:
    result = demo.run(epochs=1, batch_size=1437, weight_norm=weight_norm, quiet=True)
    (norm,) = result.history.weight_grad_norm
    moved = ("fc1.weight_v", "fc2.weight_g", "fc3.weight") if weight_norm else ("fc1.weight", "fc3.weight")
    factors = {name: result.opt.clip_coefficients[name] for name in (*moved, "fc1.bias")}
    assert factors.pop("fc1.bias") == 1.0
    assert max(factors.values()) < 0.8
    assert list(factors.values()) == pytest.approx([1.0 / norm] * len(moved), rel=1e-5)


def test_same_seed_same_bits_other_seed_others(short: demo.DemoResult) -> None:
    assert demo.run(epochs=3, quiet=True).fingerprint == short.fingerprint
    assert demo.run(epochs=3, seed=1, quiet=True).fingerprint != short.fingerprint


def test_comparison_is_of_the_two_runs(both: demo.Comparison, short: demo.DemoResult) -> None:
    normalized = demo.run(epochs=3, weight_norm=True, quiet=True)
    for one, alone in ((both.plain, short), (both.weight_norm, normalized)):
        assert one.fingerprint == alone.fingerprint
        np.testing.assert_array_equal(one.history.test_loss, alone.history.test_loss)
    assert both.plain.fingerprint != both.weight_norm.fingerprint


def test_comparison_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(training, "run", lambda *arguments, **options: calls.append((arguments, options)))
    demo.compare(2, 50, 7, quiet=True)
    assert calls == [
        ((2, 50, 7), {"weight_norm": weight_norm, "quiet": True}) for weight_norm in (False, True)
    ]


def test_comparison_is_a_table_of_two_columns(both: demo.Comparison) -> None:
    histories = (both.plain.history, both.weight_norm.history)
    lines = str(both).splitlines()
    assert max(map(len, lines)) == 80
    assert [(line[:14].rstrip(), line[14:48].rstrip(), line[48:]) for line in lines] == [
        ("", "plain", "weight norm"),
        ("training loss", *(f"{h.train_loss[-1]:.4f}" for h in histories)),
        ("test loss", *(f"{h.test_loss[-1]:.4f}" for h in histories)),
        ("test accuracy", *(f"{h.test_accuracy[-1]:.4f}" for h in histories)),
        ("fingerprint", both.plain.fingerprint, both.weight_norm.fingerprint),
    ]


def test_blas_threads_are_given_back() -> None:
    import threadpoolctl

    def counts() -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]

    demo.run(epochs=1, quiet=True)
    before = counts()
    demo.run(epochs=1, quiet=True)
    assert counts() == before


def test_quiet_says_nothing_and_loud_shows_table_and_bar(capfd: pytest.CaptureFixture[str]) -> None:
    demo.run(epochs=1, quiet=True)
    assert capfd.readouterr() == ("", "")
    demo.run(epochs=1)
    out, err = capfd.readouterr()
    for name in ("fc1.weight", "fc3.bias"):
        assert name in out
    assert "1/1" in err
    assert "accuracy=" in err
    assert "loss=" in err


def test_table_is_shown_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiling takes a while on the first run; by then something is to be read."""

    def stop(opt: nb.optimizer.Momentum) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nb.optimizer.Momentum, "compile", stop)
    with pytest.raises(KeyboardInterrupt):
        demo.run(epochs=1, weight_norm=True)
    told = capsys.readouterr()
    assert "fc1.weight" in told.out
    assert "compiling" in told.err


def test_bar_says_what_is_trained(capfd: pytest.CaptureFixture[str]) -> None:
    demo.compare(epochs=1)
    out, err = capfd.readouterr()
    assert out.count("fc1.weight") == 2
    assert err.index("training:") < err.index("training with weight norm:")


def test_pictures_do_not_touch_the_users_backend(
    both: demo.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    demo.draw(both.plain, tmp_path / "a.png")
    demo.draw_comparison(both, tmp_path / "b.png")
    assert "matplotlib.pyplot" not in sys.modules
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("epochs", [1, 9])  # with markers, and without
def test_comparison_draws_both_runs_in_both_panels(epochs: int, tmp_path: Path) -> None:
    both = demo.compare(epochs=epochs, batch_size=700, quiet=True)
    demo.draw_comparison(both, tmp_path / "both.png")
    picture = image(tmp_path / "both.png")
    assert picture.shape == (585, 1170, 3)
    for panel in np.array_split(picture[:500], 2, axis=1):  # above the legend
        for color in (pictures.BLUE, pictures.ORANGE):
            rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
            assert np.all(panel == rgb, axis=-1).sum() > 10


def test_comparison_is_drawn_over_steps(both: demo.Comparison, tmp_path: Path) -> None:
    seen = {}

    def panels(count: int) -> tuple[object, object]:
        figure, axes = made(count)
        seen["axes"] = axes
        return figure, axes

    made = pictures._panels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_panels", panels)
        demo.draw_comparison(both, tmp_path / "both.png")
    loss, accuracy = seen["axes"]
    for axes, scale, name in ((loss, 1, "loss"), (accuracy, 100, "accuracy")):
        assert axes.get_xlabel() == "step"
        lines = {line.get_label(): line for line in axes.lines}
        for kind, result in (("plain", both.plain), ("weight norm", both.weight_norm)):
            for label, part in (("training", "train"), ("held out", "test")):
                x, y = lines.pop(f"{kind}, {label}").get_data()
                assert x.tolist() == [45, 90, 135]
                np.testing.assert_array_equal(y, scale * getattr(result.history, f"{part}_{name}"))
        assert lines == {}


@pytest.mark.parametrize("batch_size", [1000, 1437])
def test_batches_that_leave_a_rest_or_are_everything(batch_size: int) -> None:
    result = demo.run(epochs=1, batch_size=batch_size, quiet=True)
    assert len(result.history.grad_norm) == math.ceil(1437 / batch_size)


def test_the_accuracy_at_the_end_has_a_label(
    short: demo.DemoResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(pictures, "_tidy", seen.append)
    demo.draw(short, tmp_path / "demo.png")
    labels = [text.get_text() for text in seen[1].get_legend().get_texts()]
    assert labels == ["training", "held out", "held out, at the end"]
