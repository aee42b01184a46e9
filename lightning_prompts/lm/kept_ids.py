"""Token ids and counts that a module keeps: they go where it goes, and that is all."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn


class KeepsIds(nn.Module):
    """Keeps integers beside its parameters, and not as buffers.

    Whatever goes through a module's buffers takes them for weights: an average of token ids is
    another token's id, a count swapped with a copy's is another run's, and `module.type` casts
    both. These move with the module and stand in its state under their names, as buffers do.
    """

    # Until the first is kept: a module is moved and saved without any, too.
    _kept: Mapping[str, bool] = MappingProxyType({})

    def keep_ids(self, name: str, ids: Tensor, persistent: bool = False) -> None:
        """Keep integers as the attribute `name`, to which others may be assigned later.

        Args:
            name: Of the attribute.
            ids: Of any shape.
            persistent: Whether they are part of the module's state.
        """
        self._kept = {**self._kept, name: persistent}
        setattr(self, name, ids)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Follow the module to its device; a type is for its weights."""
        moved = super()._apply(fn, recurse)
        for name in self._kept:
            ids: Tensor = getattr(self, name)
            setattr(self, name, ids.to(fn(torch.empty(0, device=ids.device)).device))
        return moved

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._persistent():
            destination[prefix + name] = getattr(self, name)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *args: Any,
    ) -> None:
        """Take them, of whatever shape: a search's prompts differ in length."""
        for name in self._persistent():
            # Out of the copy that is being loaded: what is left there and not known is refused.
            saved = state_dict.pop(prefix + name, None)
            if saved is None:
                missing_keys += [prefix + name] * strict
            else:
                own: Tensor = getattr(self, name)
                setattr(self, name, saved.to(own.device, own.dtype, copy=True))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *args
        )

    def _persistent(self) -> list[str]:
        return [name for name, persistent in self._kept.items() if persistent]
