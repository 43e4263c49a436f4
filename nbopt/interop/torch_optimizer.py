"""An optimizer of nbopt as torch's schedulers and trainers know one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import nbopt as nb
from nbopt.errors import StateDictError
from nbopt.interop.torch_link import tensor_of, torch
from nbopt.packages import require

__all__ = ["Optimizer"]

# What torch calls some keys of a group; the others have one name in both.
_NAMES = {"use_nesterov": "nesterov", "epsilon": "eps"}


class _Group(dict[str, Any]):
    """A group as torch shows it: a key that nbopt has too is written there, and checked, at once."""

    def __init__(self, opt: nb.Optimizer, index: int):
        self._opt, self._index = opt, index
        tensors = {id(tensor): tensor for tensor in map(tensor_of, self.source["params"])}
        super().__init__(params=list(tensors.values()))
        self.refresh()

    @property
    def source(self) -> dict[str, Any]:
        """The group of nbopt."""
        return self._opt.param_groups[self._index]

    def refresh(self) -> None:
        """Show what nbopt holds now."""
        shown = {_NAMES.get(key, key): value for key, value in self.source.items() if key != "params"}
        shown["lr"] = self._opt.get_lr() * shown.pop("learning_rate")
        if "beta1" in shown and "beta2" in shown:
            shown["betas"] = shown.pop("beta1"), shown.pop("beta2")
        decay = shown["weight_decay"]
        if decay is None or isinstance(decay, nb.regularizer.L2Decay):
            shown["weight_decay"] = 0.0 if decay is None else decay.coeff
        super().update(shown)

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        source = self.source
        names = {_NAMES.get(name, name): name for name in source}
        if key == "lr":
            self._set_rate(value)
        elif key == "betas" and "beta1" in source:
            source.update(zip(("beta1", "beta2"), value, strict=True))
        elif key in names:
            source[names[key]] = value
        else:  # what a scheduler keeps here
            super().__setitem__(key, value)
        self.refresh()

    def _set_rate(self, value: Any) -> None:
        base = self._opt.get_lr()
        if base == 0.0:
            self._opt.set_lr(1.0)
            base = 1.0
            for group in self._opt.param_groups:
                group["learning_rate"] = 0.0
        self.source["learning_rate"] = value / base

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several values, one after the other."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> _Group:  # type: ignore[misc,override]
        self.update(other)
        return self

    def state(self) -> dict[str, Any]:
        """Return what can be saved: names for tensors, the multiplier of the rate, and plain values."""
        plain = {key: value for key, value in self.items() if _is_plain(value)}
        names = [parameter.name for parameter in self.source["params"]]
        return {**plain, "learning_rate": self.source["learning_rate"], "params": names}

    def fill(self, saved: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.source["learning_rate"] = saved["learning_rate"]
        self.update({key: saved[key] for key in saved if key not in ("params", "lr", "learning_rate")})


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


_Base: Any = torch.optim.Optimizer if torch else object


class Optimizer(_Base):  # type: ignore[misc]
    """An optimizer of an adopted module, for code that asks for a ``torch.optim.Optimizer``.

    It takes the steps of the one that it is made from. Its `param_groups` are those of that one under the
    names of torch, and an edit of either is seen in both: ``lr`` is the base rate times the group's
    multiplier, and setting it sets the multiplier; ``betas``, ``eps`` and ``nesterov`` stand for ``beta1``
    and ``beta2``, ``epsilon`` and ``use_nesterov``. A ``weight_decay`` of None is 0.0 here.

    Parameters
    ----------
    optimizer : nbopt.Optimizer
        Its parameters are those of `adopt`.

    Attributes
    ----------
    optimizer : nbopt.Optimizer

    Raises
    ------
    ImportError
        If torch is not installed.
    ParameterError
        If a parameter belongs to no torch module.

    Notes
    -----
    The schedulers of ``torch.optim.lr_scheduler`` work, those that edit the momentum too. Not mirrored are
    ``state``, which is empty (nbopt keeps it, by names), the rates and regularizers of single parameters, and
    a schedule of nbopt, which the optimizer goes on to follow. It can be neither copied nor pickled; save its
    `state_dict`.

    Examples
    --------
    >>> import torch
    >>> import nbopt as nb
    >>> model = torch.nn.Linear(2, 1)
    >>> opt = nb.torch.Optimizer(nb.optimizer.Momentum(0.1, parameters=nb.torch.adopt(model)))
    >>> scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)
    >>> model(torch.ones(8, 2)).sum().backward()
    >>> opt.step()
    >>> scheduler.step()
    >>> opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]
    (0.05, 0.9)
    """

    def __init__(self, optimizer: nb.Optimizer):
        require("torch", "torch", "nbopt.torch.Optimizer", "torch")
        given: Any = optimizer
        if not isinstance(given, nb.Optimizer):
            kind = "ParameterBuffer" if isinstance(given, nb.ParameterBuffer) else type(given).__name__
            raise TypeError(
                f"nbopt.torch.Optimizer takes an optimizer of nbopt, got {kind}; write "
                "nbopt.torch.Optimizer(nbopt.optimizer.Momentum(0.1, parameters=params)) with "
                "params = nbopt.torch.adopt(module)"
            )
        self.optimizer = optimizer
        self._groups: list[_Group] = []
        groups = self.param_groups
        defaults = {key: value for key, value in groups[0].items() if key != "params"}
        super().__init__([{"params": group["params"]} for group in groups], defaults)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups under the names of torch; a value set in one is checked and seen by the next step.

        Examples
        --------
        >>> import torch
        >>> import nbopt as nb
        >>> adam = nb.optimizer.Adam(0.01, parameters=nb.torch.adopt(torch.nn.Linear(2, 1)))
        >>> group = nb.torch.Optimizer(adam).param_groups[0]
        >>> group["betas"] = (0.8, 0.99)
        >>> adam.param_groups[0]["beta1"], group["lr"]
        (0.8, 0.01)
        """
        return [*self._mirrors()]

    @param_groups.setter
    def param_groups(self, groups: Any) -> None:
        """The base class sets a list of its own; that of nbopt is shown."""

    def _mirrors(self) -> list[_Group]:
        for group in self._groups:
            group.refresh()
        for index in range(len(self._groups), len(self.optimizer.param_groups)):
            self._groups.append(_Group(self.optimizer, index))
        return self._groups

    def add_param_group(self, param_group: Any) -> None:
        """Refuse: a group that is added to the optimizer of nbopt is here too.

        Parameters
        ----------
        param_group : dict
            Not used.

        Examples
        --------
        >>> import torch
        >>> import nbopt as nb
        >>> params = nb.torch.adopt(torch.nn.Linear(2, 1))
        >>> opt = nb.torch.Optimizer(nb.optimizer.SGD(0.1, params["weight"]))
        >>> opt.optimizer.add_param_group({"params": params["bias"]})
        >>> len(opt.param_groups)
        2
        """
        own = [group["params"] for group in self._groups]
        if not any(tensors is param_group["params"] for tensors in own):  # the base class adds those
            raise TypeError(
                "nbopt.torch.Optimizer shows the groups of an optimizer of nbopt: write "
                "opt.optimizer.add_param_group({'params': [params[name], ...]})"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients first; its value is returned.

        Examples
        --------
        >>> import torch
        >>> import nbopt as nb
        >>> model = torch.nn.Linear(2, 1)
        >>> opt = nb.torch.Optimizer(nb.optimizer.SGD(0.1, nb.torch.adopt(model)))
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = model(torch.ones(8, 2)).square().mean()
        ...     loss.backward()
        ...     return loss
        >>> bool(opt.step(closure) > opt.step(closure))
        True
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Fill the gradients with zeros, in place; the default differs from that of torch.

        Parameters
        ----------
        set_to_none : bool
            True sets them to None, as torch does by default. The gradients that torch then allocates are
            copied by the next step.

        Examples
        --------
        >>> import torch
        >>> import nbopt as nb
        >>> model = torch.nn.Linear(2, 1)
        >>> opt = nb.torch.Optimizer(nb.optimizer.SGD(0.1, nb.torch.adopt(model)))
        >>> model(torch.ones(8, 2)).sum().backward()
        >>> opt.zero_grad()
        >>> model.weight.grad
        tensor([[0., 0.]])
        """
        if set_to_none:
            super().zero_grad(set_to_none=True)
        else:
            self.optimizer.clear_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what the optimizer remembers, fit for ``torch.save``.

        Returns
        -------
        dict
            ``state``, as the optimizer of nbopt gives it, and ``param_groups``: names of parameters and plain
            values, those of schedulers among them. Clips and regularizers that are objects are left out.

        Examples
        --------
        >>> import torch
        >>> import nbopt as nb
        >>> sgd = nb.optimizer.SGD(0.1, nb.torch.adopt(torch.nn.Linear(2, 1)))
        >>> nb.torch.Optimizer(sgd).state_dict()["param_groups"][0]["params"]
        ['weight', 'bias']
        """
        state = {key: _to_tensor(value) for key, value in self.optimizer.state_dict().items()}
        return {"state": state, "param_groups": [group.state() for group in self._mirrors()]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Fill in what `state_dict` gave; all of it or, on an error, nothing.

        Parameters
        ----------
        state_dict : mapping
            As `state_dict` returns it.

        Raises
        ------
        StateDictError
            If it is of another optimizer, or has other groups.

        Examples
        --------
        >>> import torch
        >>> import nbopt as nb
        >>> params = nb.torch.adopt(torch.nn.Linear(2, 1))
        >>> opt, again = (nb.torch.Optimizer(nb.optimizer.SGD(rate, params)) for rate in (0.1, 0.2))
        >>> again.load_state_dict(opt.state_dict())
        >>> again.param_groups[0]["lr"]
        0.1
        """
        mine = [group.state()["params"] for group in self._mirrors()]
        try:
            theirs = [list(group["params"]) for group in state_dict["param_groups"]]
            state = {key: _to_array(value) for key, value in state_dict["state"].items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise StateDictError(
                f"this is no state_dict() of nbopt.torch.Optimizer ({type(error).__name__}: {error}); "
                "nothing was changed"
            ) from error
        if mine != theirs:
            raise StateDictError(f"the groups hold {mine}, those saved {theirs}; nothing was changed")
        if not all("learning_rate" in group for group in state_dict["param_groups"]):
            raise StateDictError("a group that was saved lacks its learning_rate; nothing was changed")
        before = self.optimizer.state_dict(), [group.state() for group in self._mirrors()]
        try:
            self._fill(state, state_dict["param_groups"])
        except Exception:
            self._fill(*before)
            raise

    def _fill(self, state: Mapping[str, Any], groups: list[dict[str, Any]]) -> None:
        self.optimizer.set_state_dict(state)
        for group, saved in zip(self._mirrors(), groups, strict=True):
            group.fill(saved)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("nbopt.torch.Optimizer can be neither copied nor pickled; save its state_dict()")


def _to_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if hasattr(value, "__array_interface__") else value


def _to_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
