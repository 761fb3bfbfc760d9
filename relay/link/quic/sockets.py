"""The UDP socket of an endpoint."""

from __future__ import annotations

import socket

from relay.errors import SettingsError

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3  # linux/in.h; Python does not name them


def open_socket(host: str, port: int, interface: str, buffer: int) -> socket.socket:
    """Bind a UDP socket, on one network interface if it is named, with `buffer` bytes each way. Raises SettingsError.

    It sends as large as asked and never in fragments: only then do probes tell the path's MTU (RFC 9000 section 14).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, buffer)
        if interface:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        if family == socket.AF_INET:
            opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        raise SettingsError(f"UDP {host}:{port} cannot be opened for links: {error.strerror}") from None
    return opened
