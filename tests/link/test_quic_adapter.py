"""The private names of aioquic that the adapter touches. When this fails after an upgrade, read the adapter again."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic import congestion
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace

from relay.link.quic import adapter
from relay.link.quic.adapter import Quic
from relay.link.quic.window import NAME, MediaWindow

ROOT = Path(__file__).parents[2]
FOLDER = Path(adapter.__file__).parent
SOURCE = "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.py")))


def connection() -> QuicConnection:
    configuration = QuicConfiguration(congestion_control_algorithm=NAME)
    made = QuicConnection(configuration=configuration)
    made.connect(("127.0.0.1", 1), 0.0)
    return made


def test_the_pinned_version_is_the_one_that_runs() -> None:
    assert importlib.metadata.version("aioquic") == adapter.VERSION
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"aioquic=={adapter.VERSION}" in needed


def test_only_the_adapter_touches_private_names() -> None:
    """In the product; names of the form `quic._x` or `tls._x`."""
    for path in (ROOT / "relay" / "link").rglob("*.py"):
        if path.parent != FOLDER:
            assert not re.search(r"\b(quic|tls|_h3|_loss)\._[a-z]", path.read_text()), path


@pytest.mark.parametrize("name", sorted(set(re.findall(r"self\.(_[a-z]\w+)", SOURCE))))
def test_private_attributes_exist_or_are_ours(name: str) -> None:
    """Each `self._x` of the adapter is aioquic's, or set by the adapter itself."""
    theirs: tuple[Any, ...] = (connection(), connection()._loss, connection().tls)
    ours = re.search(rf"self\.{name}(: [^=\n]+)? = ", SOURCE) or f"def {name}(" in SOURCE
    assert any(hasattr(owner, name) for owner in theirs) or ours


def test_attributes_reached_through_others_exist() -> None:
    made = connection()
    assert isinstance(made._loss._cc, MediaWindow)
    assert isinstance(made._loss._pacer, QuicPacketPacer)
    assert made._loss._pacer._max_datagram_size == 1200
    assert "_max_datagram_size" in inspect.getsource(QuicPacketPacer.update_rate)
    assert hasattr(made.tls, "_peer_certificate")
    assert {"_packet", "_buffer"} <= set(vars(builder()))


def builder() -> QuicPacketBuilder:
    return QuicPacketBuilder(host_cid=b"h" * 8, peer_cid=b"p" * 8, version=1, is_client=True, max_datagram_size=1200)


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (QuicConnection, "_initialize", "self peer_cid"),
        (QuicConnection, "_receive_retry_packet", "self header packet_without_tag now"),
        (QuicConnection, "_write_datagram_frame", "self builder data frame_type"),
        (QuicConnection, "_write_handshake_done_frame", "self builder"),
        (QuicConnection, "_handle_datagram_frame", "self context frame_type buf"),
        (QuicConnection, "_flush_builder", "self builder network_path peer_cid now"),
        (QuicPacketRecovery, "on_packet_sent", "self packet space"),
        (QuicPacketRecovery, "on_ack_received", "self ack_rangeset ack_delay now space"),
        (QuicPacketRecovery, "_detect_loss", "self now space"),
        (
            QuicPacketRecovery,
            "_on_packets_lost",
            "self congestion_event now packets persistent_congestion space",
        ),
        (QuicPacketPacer, "update_rate", "self congestion_window smoothed_rtt"),
        (tls.Context, "_set_peer_certificate", "self certificate"),
        (tls.Context, "_server_handle_certificate", "self input_buf"),
    ],
)
def test_overridden_methods_have_their_parameters(owner: type, name: str, parameters: str) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters.split()


def test_tls_reads_the_flags_that_we_answer() -> None:
    assert "if self._request_client_certificate" in inspect.getsource(tls.Context._server_handle_hello)
    assert "self._request_client_certificate = False" in inspect.getsource(tls.Context.__init__)
    assert "_session_resumed = True" in inspect.getsource(tls.Context._server_handle_hello)


def test_the_queue_is_read_by_its_first_element() -> None:
    """Tuples travel through aioquic's queue to our `_write_datagram_frame`."""
    source = inspect.getsource(QuicConnection._write_application)
    assert "data=self._datagrams_pending[0]" in source
    assert "self._datagrams_pending.popleft()" in source


def test_records_have_the_fields_that_are_read() -> None:
    assert {"sent_packets", "ack_eliciting_in_flight", "largest_acked_packet", "is_application_data"} <= set(
        vars(QuicPacketSpace())
    )
    assert {"delivery_handlers", "sent_bytes", "sent_time", "is_ack_eliciting", "in_flight"} <= set(
        QuicSentPacket.__dataclass_fields__
    )
    assert set(congestion.base.QuicCongestionControl.__abstractmethods__) <= set(vars(MediaWindow))


def test_an_adapter_without_a_check_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        Quic(configuration=QuicConfiguration())  # type: ignore[call-arg]
