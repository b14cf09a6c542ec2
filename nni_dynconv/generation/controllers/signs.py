"""Signs of each site's and each position's own, which make what one map gives for them uncorrelated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parts import Upgrading

__all__ = ["Signs", "random_signs"]

LEAST = 127  # rows of a table


class Signs(Upgrading):
    r"""Rows of random signs, fixed from the start: position p of a site has row ``(start + step * p) mod rows``.

    All rows come from one table, hardly larger than the positions of the largest site, and the same in every process.
    Their number is prime: the positions of a site have different rows, and two sites have the same one at one position
    in ``rows``.

    Parameters
    ----------
    counts
        Positions of each site.
    dim
        Signs in a row.

    before
        How many signs of a row there were in versions whose files have no places. They depended on the position alone.

    Attributes
    ----------
    places
        ``(sites, 3)``: start, step, and the number of rows, which is negative for signs of earlier versions. They are
        part of the state, for a frozen network keeps the signs of its supernet.

    Examples
    --------
    >>> signs = Signs([3, 2], dim=8, before=0)
    >>> signs.rows([(0, 0, 3), (1, 0, 2)]).shape
    torch.Size([5, 8])
    """

    places: Tensor
    table: Tensor  # rows dim
    lines: Tensor  # rows of the table, over all positions of all sites

    def __init__(self, counts: Sequence[int], dim: int, before: int):
        super().__init__()
        self.counts, self.dim, self.before = list(counts), dim, before
        rows = _prime_from(max([LEAST, 2 * len(counts), *counts]))
        far = round(0.618 * rows)
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.register_buffer("places", torch.empty(0, 3, dtype=torch.long))
        self.register_buffer("lines", torch.empty(0, dtype=torch.long), persistent=False)
        self._set([[number * far % rows, 1 + number % (rows - 1), rows] for number in range(len(counts))])

    def _set(self, places: list[list[int]]) -> None:
        """Let sites have these places, and make table and lines for them: rows of today, then those of before."""
        self._places = places
        today, then = (max([0, *(sign * rows for _, _, rows in places)]) for sign in (1, -1))
        earlier = F.pad(random_signs(then, self.before), (0, self.dim - self.before), value=1.0)
        self.table = torch.cat([random_signs(today, self.dim), earlier]).to(self.table)
        self.places = self.places.new_tensor(places).view(-1, 3)
        lines = [
            (start + step * torch.arange(count, device="cpu")) % abs(rows) + (0 if rows > 0 else today)
            for (start, step, rows), count in zip(places, self.counts, strict=True)
        ]
        self.lines = torch.cat([torch.empty(0, dtype=torch.long, device="cpu"), *lines]).to(self.lines.device)
        self._first = list(accumulate(self.counts, initial=0))

    def rows(self, wanted: Sequence[tuple[int, int, int]]) -> Tensor:  # -> n dim
        """Return signs, one after the other.

        Parameters
        ----------
        wanted
            Sites by number, each with its first position and how many positions.
        """
        return self.table.index_select(0, self.lines_of(wanted))

    def lines_of(self, wanted: Sequence[tuple[int, int, int]]) -> Tensor:  # -> n
        """Return which rows of the table those are."""
        places = [(self._first[site] + start, count) for site, start, count in wanted]
        lines = [self.lines[start : start + count] for start, count in places]
        return lines[0] if len(lines) == 1 else torch.cat(lines)

    def select(self, sites: Sequence[int]) -> None:
        """Forget other sites, or let some share the signs of one."""
        self.counts = [self.counts[site] for site in sites]
        self._set([self._places[site] for site in sites])

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        if f"{prefix}places" not in state:
            then = [0, 1, -max(self.counts, default=1)]
            state[f"{prefix}places"] = self.places.new_tensor(then).expand_as(self.places).clone()

    def _load_from_state_dict(self, *state: Any) -> None:
        super()._load_from_state_dict(*state)
        self._set(self.places.tolist())

    def extra_repr(self) -> str:
        return f"sites={len(self.counts)}, dim={self.dim}"


def random_signs(count: int, dim: int) -> Tensor:
    """Return rows of random signs, the same for a row in every process and for every count.

    Examples
    --------
    >>> bool((random_signs(5, 16)[:3] == random_signs(3, 16)).all())
    True
    """
    generator = torch.Generator("cpu").manual_seed(0)  # also where another device is torch's default
    return torch.randint(2, (count, dim), generator=generator, device="cpu") * 2.0 - 1.0


def _prime_from(least: int) -> int:
    """Return the first prime that is no less.

    >>> [_prime_from(least) for least in (2, 8, 127)]
    [2, 11, 127]
    """
    found = least
    while any(found % one == 0 for one in range(2, int(found**0.5) + 1)):
        found += 1
    return found
