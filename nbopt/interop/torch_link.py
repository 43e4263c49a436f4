"""What ties a buffer to the parameters of a torch module, and notices when torch has untied it."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

import nbopt as nb
from nbopt.errors import ParameterError

try:
    import torch
except ModuleNotFoundError:
    torch = None

__all__ = ["Link", "tensor_of", "torch"]

_gradient = operator.attrgetter("grad")
_requires_grad = operator.attrgetter("requires_grad")

# The tensor of an adopted parameter, of its g and of its v.
_tensors: weakref.WeakKeyDictionary[nb.Parameter, Any] = weakref.WeakKeyDictionary()


def tensor_of(parameter: nb.Parameter) -> Any:
    """Return the tensor of an adopted parameter, or of the one that it is the g or v of."""
    try:
        return _tensors[parameter]
    except KeyError:
        raise ParameterError(
            f"parameter {parameter.name!r} belongs to no torch module: make its buffer by nbopt.torch.adopt"
        ) from None


def _as_gradient_of(tensor: Any, grad: Any) -> Any:
    """Return a gradient of any layout, and of the dtype that ``grad_dtype`` allows, as NumPy can read it."""
    return grad.detach().to_dense().to(tensor.dtype)


class Link:
    """The tensors of a module, made views of a buffer.

    Every step asks `gather` first, so the look at tensors that are where they were is a few passes in C.

    Parameters
    ----------
    module : torch.nn.Module
    params : ParameterBuffer
    named : mapping of str to torch.nn.Parameter
        The parameters of the module that `params` has, by its names.
    """

    def __init__(self, module: Any, params: nb.ParameterBuffer, named: Mapping[str, Any]):
        # The parameters refer to the buffer, which refers to this.
        self._parameters = [params[name] for name in named]
        self._tensors = list(named.values())
        for parameter, tensor in zip(self._parameters, self._tensors, strict=True):
            if not tensor.requires_grad:
                parameter.trainable = False
        grads = {name: _as_gradient_of(p, p.grad) for name, p in named.items() if p.grad is not None}
        params.clear_grad(set_to_zero=False)
        params.set_grads({name: grad.numpy() for name, grad in grads.items()})
        # Everything that can fail has been done.
        values = [params.flat[params.slices[name]].reshape(params[name].shape) for name in named]
        for tensor, value in zip(self._tensors, values, strict=True):
            tensor.data = torch.from_numpy(value)
        self._pointers = self._value_pointers()
        self._views = [torch.from_numpy(parameter.grad) for parameter in self._parameters]
        self._view_pointers = self._gradient_pointers()
        self._needed = list(map(_requires_grad, self._tensors))
        self._seen: list[Any] = [None] * len(self._tensors)  # what each .grad was after the last look
        self.attach()
        names = {id(tensor): name for name, tensor in named.items()}
        places = [
            (inside._parameters, key, names[id(tensor)], tensor)
            for inside in module.modules()
            for key, tensor in inside._parameters.items()
            if id(tensor) in names
        ]
        columns = (list(column) for column in zip(*places, strict=True))
        self._homes, self._keys, self._names, self._held = columns
        self._normed = [
            (p, t) for p, t in zip(self._parameters, self._tensors, strict=True) if p.weight_v is not None
        ]
        self._versions = self._normed_versions()
        for parameter, tensor in zip(self._parameters, self._tensors, strict=True):
            for part in (parameter, parameter.weight_g, parameter.weight_v):
                if part is not None:
                    _tensors[part] = tensor

    def _value_pointers(self) -> list[int]:
        return list(map(torch.Tensor.data_ptr, self._tensors))

    def _gradient_pointers(self) -> list[int]:
        return list(map(torch.Tensor.data_ptr, self._views))

    def _normed_versions(self) -> list[int]:
        return [tensor._version for _, tensor in self._normed]

    def attach(self) -> None:
        """Put the views in the place of the gradients of all that train."""
        for i, (view, seen, needed) in enumerate(zip(self._views, self._seen, self._needed, strict=True)):
            if needed and seen is not view:
                self._tensors[i].grad = self._seen[i] = view

    def gather(self) -> None:
        """Take over what torch has put in other places."""
        if not (
            all(map(operator.is_, map(dict.get, self._homes, self._keys), self._held))
            and self._value_pointers() == self._pointers
        ):
            self._refuse()
        if not (
            all(map(operator.is_, map(_gradient, self._tensors), self._seen))
            and self._gradient_pointers() == self._view_pointers
            and list(map(_requires_grad, self._tensors)) == self._needed
        ):
            self._take_over()
        if self._normed:
            self._decompose()

    def tell_autograd(self) -> None:
        """Say that the values are about to change: a graph that needs them as they were is of no use then."""
        torch.autograd.graph.increment_version(self._tensors)
        if self._normed:
            self._versions = self._normed_versions()

    def _refuse(self) -> None:
        pointers = zip(self._parameters, self._value_pointers(), self._pointers, strict=True)
        lost = [parameter.name for parameter, now, was in pointers if now != was]
        places = zip(self._homes, self._keys, self._names, self._held, strict=True)
        lost += [name for home, key, name, tensor in places if home.get(key) is not tensor]
        raise ParameterError(
            f"parameter {lost[0]!r} of the module no longer lies in the buffer: it was moved or replaced, as "
            "module.to(), load_state_dict(assign=True) or another adopt() do. Nothing was changed; adopt "
            "the module again, and make a new optimizer"
        )

    def _take_over(self) -> None:
        into, come = [], []
        for i, (parameter, tensor) in enumerate(zip(self._parameters, self._tensors, strict=True)):
            if tensor.requires_grad != self._needed[i]:
                parameter.trainable = self._needed[i] = tensor.requires_grad
            grad = tensor.grad
            if self._views[i].data_ptr() != self._view_pointers[i]:  # by view.data = ...
                self._views[i] = torch.from_numpy(parameter.grad)
            elif grad is self._seen[i]:
                continue
            if grad is None:
                parameter.grad = None
            elif grad is not self._views[i]:
                grad = _as_gradient_of(tensor, grad)
                if parameter.has_grad:
                    into.append(self._views[i])
                    come.append(grad)
                else:
                    parameter.grad = grad.numpy()
                tensor.grad = self._views[i]
            self._seen[i] = tensor.grad
        if into:
            with torch.no_grad():
                torch._foreach_copy_(into, come)

    def _decompose(self) -> None:
        """Of a weight that torch has written to, find g and v."""
        for (parameter, tensor), version in zip(self._normed, self._versions, strict=True):
            if tensor._version != version:
                parameter.value = np.array(tensor.detach().numpy())
        self._versions = self._normed_versions()
