"""``nni-dynconv register``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["register"]


def register(remove: Annotated[bool, typer.Option("--remove", help="Take the registration back.")] = False) -> None:
    """Make the tuner name `DynamicWeightMutator` known to NNI.

    Once; then plain `nnictl` runs our experiments:

        nni-dynconv register
        nnictl create --config configs/one_shot.yml
    """
    from ..experiments import registration

    if remove:
        if not registration.remove():
            print("`DynamicWeightMutator` is not registered with NNI.")
    elif not registration.register():
        print("`DynamicWeightMutator` is registered with NNI already.")
