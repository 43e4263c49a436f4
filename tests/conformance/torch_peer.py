"""torch under a configuration: a group for every array, so that each may have its own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.conformance.configurations import Configuration
from tests.oracle import Clip

torch = pytest.importorskip("torch", minversion="2.6")

ADAM = ("Adam", "AdamW")
ACCUMULATORS = {
    "momentum_buffer": "velocity",
    "exp_avg": "moment1",
    "exp_avg_sq": "moment2",
    "max_exp_avg_sq": "moment2_max",
}
EPSILON = 1e-6  # what torch adds to a norm before it divides by it


class Torch:
    """SGD, Adam and AdamW of torch.optim; clip_grad_* and parametrizations.weight_norm of torch.nn.utils.

    A parameter has one leaf, a weight-normed one two: `<name>_g` and `<name>_v`.
    """

    def __init__(self, conf: Configuration):
        self.conf = conf
        self.rate = conf.options["learning_rate"]
        self.module = torch.nn.Module()
        self.leaves: dict[str, Any] = {}
        self.owner: dict[str, str] = {}  # the parameter of a leaf
        self.policies: dict[str, dict[str, Any]] = {}
        for name, value in conf.values().items():
            spec = conf.params[name]
            self.module.register_parameter(name, torch.nn.Parameter(torch.from_numpy(value)))
            leaves = {name: getattr(self.module, name)}
            if spec.normed:
                torch.nn.utils.parametrizations.weight_norm(self.module, name, dim=spec.dim)
                g, v = self.module.parametrizations[name].parameters()
                leaves = {f"{name}_g": g, f"{name}_v": v}
            self.leaves |= leaves
            self.owner |= dict.fromkeys(leaves, name)
            self.policies |= {leaf: dict(spec.policies) for leaf in leaves}
        groups = [{"params": list(conf.params)}] if conf.groups is None else conf.groups
        self.groups = [dict(group) for group in groups]
        group_of = {name: group for group in self.groups for name in group["params"]}
        self.held = {leaf: group_of[name] for leaf, name in self.owner.items() if name in group_of}
        kind = getattr(torch.optim, conf.rule if conf.rule in ADAM else "SGD")
        options = {"amsgrad": conf.options.get("amsgrad", False)} if conf.rule in ADAM else {}
        self.opt = kind([{"params": [self.leaves[leaf]]} for leaf in self.held], lr=self.rate, **options)

    def option(self, leaf: str, key: str, default: Any = None) -> Any:
        """What a group says, else what the optimizer says."""
        return self.held[leaf].get(key, self.conf.options.get(key, default))

    def set_lr(self, value: float) -> None:
        self.rate = value

    def edit(self, name: str | int, key: str, value: Any) -> None:
        if isinstance(name, int):
            self.groups[name][key] = value
        for leaf, owner in self.owner.items():
            if name in (leaf, owner):
                self.policies[leaf][key] = value

    def step(self, grads: Mapping[str, np.ndarray | None]) -> None:
        for name, grad in grads.items():
            self.write_grad(name, grad)
        self.clip()
        for (leaf, ours), group in zip(self.held.items(), self.opt.param_groups, strict=True):
            policies = self.policies[leaf]
            own, given = policies["regularizer"], self.option(leaf, "weight_decay")
            group["lr"] = self.rate * ours.get("learning_rate", 1.0) * policies["learning_rate"]
            if self.conf.rule == "AdamW":
                if own and self.leaves[leaf].grad is not None:
                    self.leaves[leaf].grad += own.l2 * self.leaves[leaf].detach()
                group["weight_decay"] = given
            else:
                decay = given if own is None else own
                group["weight_decay"] = decay.l2 if decay else 0.0
            if self.conf.rule in ADAM:
                group["betas"] = self.option(leaf, "beta1"), self.option(leaf, "beta2")
                group["eps"] = self.option(leaf, "epsilon")
            else:
                momentum = self.option(leaf, "momentum", 0.0)
                group["momentum"] = momentum
                group["nesterov"] = self.option(leaf, "use_nesterov", False) and momentum > 0
        self.opt.step()

    def write_grad(self, name: str, grad: np.ndarray | None) -> None:
        leaves = [leaf for leaf, owner in self.owner.items() if owner == name]
        for leaf in leaves:
            self.leaves[leaf].grad = None
        if grad is None:
            return
        # Through autograd, where weight norm is taken back to g and v.
        getattr(self.module, name).backward(torch.from_numpy(grad))
        for leaf in leaves:
            if leaf not in self.held or not self.policies[leaf]["trainable"]:
                self.leaves[leaf].grad = None
            else:
                self.leaves[leaf].grad *= self.option(leaf, "rescale_grad", 1.0)

    def clip(self) -> None:
        members: dict[Any, tuple[Clip, list[Any]]] = {}
        for leaf in self.held:
            clip = self.option(leaf, "grad_clip")
            if clip and self.policies[leaf]["need_clip"] and self.leaves[leaf].grad is not None:
                key = clip.key if clip.kind == "global" else leaf
                members.setdefault(key, (clip, []))[1].append(self.leaves[leaf])
        for clip, leaves in members.values():
            if clip.kind == "value":
                torch.nn.utils.clip_grad_value_(leaves, clip.limit)
            else:
                # clip_grad_norm_ in its two halves, without the epsilon.
                norm = torch.nn.utils.get_total_norm([leaf.grad for leaf in leaves])
                torch.nn.utils.clip_grads_with_norm_(leaves, clip.limit, norm - EPSILON)

    def values(self) -> dict[str, np.ndarray]:
        result = {name: getattr(self.module, name).detach().numpy() for name in self.conf.params}
        for leaf, tensor in self.leaves.items():
            result[leaf] = self.array(leaf, tensor)
            for key, held in self.opt.state.get(tensor, {}).items():
                if key in ACCUMULATORS and held is not None:
                    result[f"{leaf}.{ACCUMULATORS[key]}"] = self.array(leaf, held)
        return result

    def array(self, leaf: str, tensor: Any) -> np.ndarray:
        """An array of nbopt's shape: a g of one element keeps the rank there."""
        array, shape = tensor.detach().numpy(), self.conf.params[self.owner[leaf]].shape
        return array.reshape([1] * len(shape)) if leaf.endswith("_g") and array.ndim == 0 else array
