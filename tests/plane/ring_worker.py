"""A worker process: what comes by a tap ring goes back by an inject ring, as stream 7. Says "ready" when it is.

`python -m tests.plane.ring_worker TAP INJECT`, each three descriptors with commas between.
"""

from __future__ import annotations

import sys

from relay.plane.shared_ring import SharedRing


def main() -> None:
    tap, inject = (SharedRing.attach([int(fd) for fd in words.split(",")]) for words in sys.argv[1:])
    reader, writer = tap.reader(), inject.writer()
    print("ready", flush=True)
    while reader.wait():
        for packet in reader.read():
            writer.put(7, packet.arrival, packet.data, more=True)
        writer.flush()
    inject.close()
    reader.close()


if __name__ == "__main__":
    main()
