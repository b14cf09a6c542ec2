"""The evaluator's loaders as a search uses them: several at once, and batches outside of Lightning's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pytorch_lightning.utilities import CombinedLoader

from ..errors import ConfigError

__all__ = ["Loaders", "check_loaders", "first_batches", "flattened", "keys_of", "plain"]


@dataclass
class Loaders:
    """What gives the evaluator's batches: training ones, and held-out ones.

    Parameters
    ----------
    training, validation
        Called for a loader, or for several in a list or mapping.
    alternate
        Whether the loss of a held-out batch is that of one of several held-out loaders, by turns: where training has
        one loader only, its step takes the batch of one.
    """

    training: Callable[[], Any] = list
    validation: Callable[[], Any] = list
    alternate: bool = field(default=False)

    def held_out(self, batch: Any, number: int) -> Any:
        """Return what the training step takes, of a step's held-out batch."""
        if not self.alternate:
            return batch
        batches = list(batch.values()) if isinstance(batch, Mapping) else list(batch)
        return batches[number % len(batches)]


def keys_of(loader: Any) -> list[Any] | None:
    """Return the keys of several loaders, or ``None`` of a single one."""
    if isinstance(loader, CombinedLoader):
        loader = loader.iterables
    if isinstance(loader, Mapping):
        return list(loader)
    return list(range(len(loader))) if isinstance(loader, (list, tuple)) else None


def check_loaders(training: Any, validation: Any) -> bool:
    """Return whether held-out batches come from several loaders by turns.

    Raises
    ------
    ConfigError
        Training batches come from several loaders, and held-out ones not from as many: a training step measures both.
    """
    for given, which in ((training, "train"), (validation, "val")):
        if isinstance(given, CombinedLoader) and given._mode != "max_size_cycle":
            raise ConfigError(
                f"The evaluator's `{which}_dataloaders` are a `CombinedLoader` of mode {given._mode!r}, but a search "
                f"joins training and held-out batches by 'max_size_cycle'. Give the loaders in a list or a dict."
            )
    ours, theirs = keys_of(training), keys_of(validation)
    if ours is not None and ours != theirs:
        raise ConfigError(
            f"The evaluator trains on several loaders, {ours}, and holds out {theirs or 'one'}: its "
            f"training step, by which a search also measures held-out batches, takes one of each. Give "
            f"`val_dataloaders` in the same form, or join the data sets (`torch.utils.data.ConcatDataset`)."
        )
    return ours is None and theirs is not None


def plain(loader: Any) -> Any:
    """Return several loaders as they stand in a list or mapping, which Lightning joins with others."""
    return loader.iterables if isinstance(loader, CombinedLoader) else loader


def flattened(loader: Any) -> list[Any]:
    """Return loaders one by one, of whatever lists and mappings hold them.

    Examples
    --------
    >>> flattened({"a": "one", "b": ["two", None]})
    ['one', 'two']
    """
    if isinstance(loader, CombinedLoader):
        return list(loader.flattened)
    if isinstance(loader, Mapping):
        return flattened(list(loader.values()))
    if isinstance(loader, (list, tuple)):
        return [one for some in loader for one in flattened(some)]
    return [] if loader is None else [loader]


def first_batches(loader: Any, count: int, to_device: Callable[[Any], Any], by_turns: bool = False) -> list[Any]:
    """Return the first batches of a loader, on the device.

    Parameters
    ----------
    loader
        One, or several in a list or mapping, whose batches come in the same form.
    by_turns
        Of several, the batches of one after the other.
    """
    return [to_device(one) for one in islice(_batches(plain(loader), by_turns), count)]


def _batches(loader: Any, by_turns: bool) -> Iterator[Any]:
    if keys_of(loader) is None:
        yield from loader
        return
    joined: Iterable[Any] = CombinedLoader(loader, "max_size" if by_turns else "max_size_cycle")
    for batch, _, _ in iter(joined):
        if by_turns:
            yield from (one for one in (batch.values() if isinstance(batch, Mapping) else batch) if one is not None)
        else:
            yield batch
