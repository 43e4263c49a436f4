"""PyTorch modules on flat storage: reached as ``nbopt.torch``.

`adopt` moves the parameters of a module into a buffer; `Optimizer` shows an optimizer of that buffer to the
schedulers and trainers of torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import nbopt as nb
from nbopt.errors import DeviceError, ParameterError
from nbopt.interop.patterns import is_left_out
from nbopt.interop.torch_link import Link, torch
from nbopt.interop.torch_optimizer import Optimizer
from nbopt.packages import require

__all__ = ["Optimizer", "adopt"]


class _Adopted(nb.ParameterBuffer):
    """A buffer whose values and gradients are those of a torch module."""

    _link: Link | None = None

    def gather_grads(self) -> None:
        """Take over what torch has put in other places since the last step."""
        if self._link is not None:
            self._link.gather()

    def _prepare_step(self) -> None:
        """Gather, before values change."""
        self.gather_grads()
        if self._link is not None:
            self._link.tell_autograd()

    def set_grads(self, grads: Any) -> None:
        """Copy gradients in, over those of torch."""
        self.gather_grads()
        super().set_grads(grads)

    def clear_grad(self, set_to_zero: bool = True) -> None:
        """Fill every gradient with zeros, and let torch accumulate into them."""
        self.gather_grads()
        super().clear_grad(set_to_zero)
        if self._link is not None:
            self._link.attach()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # A copy belongs to no module: torch copies parameters without asking.
        self.gather_grads()
        return nb.ParameterBuffer.__new__, (nb.ParameterBuffer,), self.__getstate__()


def adopt(module: Any, attrs: Mapping[str, Any] | None = None) -> nb.ParameterBuffer:
    """Move the parameters of a torch module into a buffer, where torch and nbopt share them.

    Values and gradients of the module become views of the buffer: the forward pass reads what a step wrote,
    and ``loss.backward()`` accumulates into `ParameterBuffer.flat_grad`. Nothing is copied in a step.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU, its parameters all float32 or all float64. It stays the module that it was: the same
        parameters, hooks and ``state_dict()``; ``load_state_dict`` fills the buffer. A parameter that has
        several names is one, under the first of ``module.named_parameters()``.
    attrs : mapping of str to attr, optional
        As in `ParameterBuffer.from_arrays`, by patterns of names; False leaves parameters to torch. With a
        `WeightNormParamAttr` the module reads the recomposed weight.

    Returns
    -------
    ParameterBuffer
        Parameters with ``requires_grad=False`` have ``trainable=False``. A copy or a pickle of it is a buffer
        that belongs to no module.

    Raises
    ------
    ImportError
        If torch is not installed.
    TypeError
        If it is no module, or its parameters are neither all float32 nor all float64.
    DeviceError
        If it is not on the CPU.
    ParameterError
        If it has no parameters, two of them overlap in memory, or they are of ``torch.inference_mode()``.

    Notes
    -----
    Before every step from Python the buffer looks where torch's tensors are. A gradient that torch has
    allocated anew is copied in, and the view put back in its place. A parameter whose gradient is None is
    absent: steps skip it, as torch's do. A change of ``requires_grad`` is obeyed. Values that lie elsewhere,
    as after ``module.to(dtype)`` or ``load_state_dict(assign=True)``, are a `ParameterError`.

    ``module.zero_grad()`` sets gradients to None; `ParameterBuffer.clear_grad` fills them with zeros and
    leaves them in place, which is faster. `nbopt.Optimizer.jit_step` does not look at torch.

    Examples
    --------
    >>> import torch
    >>> import nbopt as nb
    >>> model = torch.nn.Linear(2, 1)
    >>> params = nb.torch.adopt(model)
    >>> opt = nb.optimizer.Momentum(0.1, 0.9, params, grad_clip=nb.ClipGradByGlobalNorm(1.0))
    >>> before = model.weight.detach().clone()
    >>> model(torch.ones(8, 2)).sum().backward()
    >>> params["weight"].grad
    array([[8., 8.]], dtype=float32)
    >>> opt.step()
    >>> bool((model.weight < before).all())
    True
    """
    require("torch", "torch", "nbopt.torch.adopt", "torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"adopt takes a torch.nn.Module, got {type(module).__name__}")
    named = {name: p for name, p in module.named_parameters() if not is_left_out(name, attrs)}
    if not named:
        raise ParameterError(f"this {type(module).__name__} has no parameters to adopt")
    dtype = _common_dtype(named)
    _check_apart(named)
    # What is left out has a name that patterns must find, and may have values that NumPy has no type for.
    arrays = {name: p.detach().numpy() if name in named else 0.0 for name, p in module.named_parameters()}
    params = _Adopted.from_arrays(arrays, attrs, dtype)
    params._link = Link(module, params, named)
    return params


def _common_dtype(named: Mapping[str, Any]) -> str:
    """Return the dtype of all, or say which cannot be adopted."""
    names: dict[Any, str] = {}
    for name, p in named.items():
        if torch.nn.parameter.is_lazy(p):
            raise ParameterError(f"parameter {name!r} has no shape yet; call the module once before adopt")
        if p.device.type != "cpu":
            raise DeviceError(
                f"parameter {name!r} is on {p.device}; adopt takes modules on the CPU alone: call "
                "module.cpu() first, and keep to the optimizers of torch for training on a GPU"
            )
        if p.layout is not torch.strided or p.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"parameter {name!r} is {p.dtype}, {p.layout}; adopt takes dense float32 or float64: "
                "call module.float() or module.double() first, or leave it to torch with "
                f"attrs={{{name!r}: False}}"
            )
        if p.is_inference() or torch.is_inference_mode_enabled():
            raise ParameterError(
                f"parameter {name!r} would be a tensor that cannot train: make and adopt the module outside "
                "torch.inference_mode()"
            )
        names.setdefault(p.dtype, name)
    if len(names) > 1:
        one, other = (f"{name!r} is {dtype}" for dtype, name in names.items())
        raise TypeError(
            f"parameter {one} and {other}; a buffer has one dtype: call module.float() or module.double() "
            "first, or leave some to torch with attrs={pattern: False}"
        )
    return str(*names).removeprefix("torch.")


def _check_apart(named: Mapping[str, Any]) -> None:
    """Refuse parameters that overlap in memory: adoption would part them."""
    spans = []
    for name, p in named.items():
        if p.numel():
            last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
            spans.append((p.data_ptr(), p.data_ptr() + (last + 1) * p.element_size(), name))
    spans.sort()
    for (_, end, name), (begin, _, other) in itertools.pairwise(spans):
        if begin < end:
            raise ParameterError(
                f"parameters {name!r} and {other!r} overlap in memory, and would be parted; make them one "
                "parameter, or give one of them memory of its own"
            )
