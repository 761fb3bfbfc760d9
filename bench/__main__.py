"""`python -m bench [NAMES…] [--quick]`: measure, print a table each, and write `bench/results/<name>.json`.

All of them take about a quarter of an hour, with `--quick` about four minutes: that is for seeing that they run. Whole
nodes run on the reference plane, save where a row says otherwise, and for `mix_glass`, `mix_stages` and `janus`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from bench.plan import Plan
from bench.report import publish

BENCHES = (
    "plane",
    "latency",
    "join",
    "dtls",
    "memory",
    "burst",
    "chromium",
    "native",
    "taps",
    "link",
    "mix",
    "mix_audio",
    "mix_glass",
    "mix_stages",
    "mix_ray",
    "janus",
)
EACH_AT_MOST_S = 480.0


def main() -> int:
    """Run the named benches, or all. A bench that fails is told and does not stop the others: exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    signal.signal(signal.SIGTERM, _stop)
    plan = Plan.make(quick=options.quick)
    failed = False
    begin = time.monotonic()
    for name in options.names or BENCHES:
        started = time.monotonic()
        try:
            figures = asyncio.run(_measure(name, plan))
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except Exception as error:
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            failed = True
        else:
            publish(name, figures)
            print(f"took {time.monotonic() - started:.0f} s\n")
    print(f"{time.monotonic() - begin:.0f} s in all")
    return int(failed)


async def _measure(name: str, plan: Plan):  # type: ignore[no-untyped-def]
    async with asyncio.timeout(EACH_AT_MOST_S):
        return await importlib.import_module(f"bench.{name}").measure(plan)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
