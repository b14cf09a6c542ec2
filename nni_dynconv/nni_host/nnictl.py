"""``nnictl``, with what is mended of how it starts NNI's manager."""

from __future__ import annotations

import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run ``nnictl`` with the arguments of this process."""
    from . import compat

    compat.mend_start()
    sys.argv[0] = "nnictl"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources")
        from nni.tools.nnictl.nnictl import parse_args
    parse_args()


if __name__ == "__main__":
    main()
