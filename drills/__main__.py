"""`python -m drills COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from drills.cluster import console

COMMANDS: dict[str, Callable[[list[str]], None]] = {"cluster": console.main}


def main() -> None:
    """Hand the rest of the command line to a command."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python -m drills {{{','.join(COMMANDS)}}} …")
    COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
