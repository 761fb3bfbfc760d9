"""`python -m relay.workers OPTIONS TAP INJECT PAGE SHAPE FONT CONTROL PARENT`: see `relay.workers.executor`.

All but the first are the arguments of the worker that this process stands in for.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from relay.errors import CostreamError
from relay.mix.video.messages import TO_WORKER
from relay.mix.video.page import Page
from relay.plane.shared_ring import SharedRing
from relay.process.control import Message, Wire
from relay.process.worker import ControlEnd, begin
from relay.workers.executor import Options, options_of
from relay.workers.ray_host import ask_host, join
from relay.workers.stand_in import StandIn
from relay.workers.words import Failed

READ_S = 2.0
"""For the relay to read why: it kills this process then, with that reason."""


async def _run(options: Options, arguments: Sequence[str], control: ControlEnd[Message]) -> None:
    tap, inject = (SharedRing.attach([int(word) for word in words.split(",")]) for words in arguments[:2])
    host, address = ask_host(options.cpus)
    stand_in = StandIn(
        control,
        tap,
        inject,
        Page(int(arguments[2])),
        host,
        address=options.host or address,
        cores=max(1, round(options.cpus)),
        report_s=options.report_s,
        shape=arguments[3],
        font=arguments[4],
    )
    await stand_in.run()


def main(arguments: Sequence[str]) -> int:
    wire: Wire[Message] = Wire(*TO_WORKER)
    control = begin(arguments, wire)
    options = options_of(arguments[0])
    try:
        join(options.address)
        asyncio.run(_run(options, arguments[1:], control))
    except CostreamError as error:
        control.send(Failed(str(error)))
        time.sleep(READ_S)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
