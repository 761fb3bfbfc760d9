"""Settings: files are the manual, later sources win, every refusal says where and what was meant."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from relay.errors import SettingsError
from relay.settings import (
    DEV_KEY_ID,
    DEV_SECRET,
    NodeSettings,
    SignalingSettings,
    dev_settings,
    load_node_settings,
    load_signaling_settings,
)
from relay.settings.source import key_lines, read_settings, walk_keys

CONFIGS = Path(__file__).parent.parent / "configs"
OWN_KEY = {"auth.keys": {"studio": "s" * 32}}
FILES = pytest.mark.parametrize(
    ("name", "model"), [("relay.toml", NodeSettings), ("signaling.toml", SignalingSettings)]
)


def refusal(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
    """Return the error of loading `text` as relay.toml, with the path shortened to `F`."""
    path = tmp_path / "relay.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_node_settings(path, environ or {})
    return str(caught.value).replace(str(path), "F")


@FILES
def test_file_says_what_the_code_does(name: str, model: type[BaseModel]) -> None:
    assert read_settings(model, CONFIGS / name) == model()


@FILES
def test_file_has_every_key(name: str, model: type[BaseModel]) -> None:
    lines = key_lines((CONFIGS / name).read_text())
    sections = {key[:length] for key in [*walk_keys(model)] for length in range(1, len(key))}
    assert set(lines) - sections == set(walk_keys(model))


@FILES
def test_every_key_in_the_file_has_a_comment(name: str, model: type[BaseModel]) -> None:
    """A blank line separates groups; a group with keys starts with its comment."""
    for group in (CONFIGS / name).read_text().split("\n\n"):
        lines = [line for line in group.splitlines() if line and not line.startswith("[")]
        if any("=" in line for line in lines if not line.startswith("#")):
            assert lines[0].startswith("#"), group


def test_comments_of_shared_keys_agree() -> None:
    """One key has one meaning: sections of both files read the same, but for the region's purpose."""
    texts = [(CONFIGS / name).read_text() for name in ("relay.toml", "signaling.toml")]
    sections = [dict(re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)) for text in texts]
    for section in ("http", "room", "store", "cluster", "webhooks", "auth", "rate", "log"):
        assert sections[0][section].strip() == sections[1][section].strip()


def test_later_sources_win(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("[http]\nport = 1\nplain_port = 2\nmax_body_bytes = 3\n")
    environ = {"COSTREAM_HTTP__PLAIN_PORT": "20", "COSTREAM_HTTP__MAX_BODY_BYTES": "30", "COSTREAM_TOKEN": "x"}
    loaded = load_node_settings(path, environ, {"http.max_body_bytes": "300", **OWN_KEY})
    assert (loaded.http.port, loaded.http.plain_port, loaded.http.max_body_bytes) == (1, 20, 300)


@pytest.mark.parametrize(
    ("variable", "text", "section", "key", "value"),
    [
        ("ROOM__AUTO_CREATE", "yes", "room", "auto_create", True),
        ("MEDIA__ADVERTISE", "203.0.113.7, 2001:db8::1", "media", "advertise", ("203.0.113.7", "2001:db8::1")),
        ("MEDIA__ADVERTISE", '["203.0.113.7"]', "media", "advertise", ("203.0.113.7",)),
        ("MEDIA__ADVERTISE", "", "media", "advertise", ()),
        ("NODE__ID", "7", "node", "id", "7"),
        ("NODE__STATE_DIR", "/var/lib/costream", "node", "state_dir", Path("/var/lib/costream")),
        ("SESSION__SEAT_HOLD_S", "90", "session", "seat_hold_s", 90.0),
        ("AUTH__KEYS", '{"a": "%s"}' % ("k" * 32), "auth", "keys", {"a": "k" * 32}),
    ],
)
def test_variables_are_read_by_type(variable: str, text: str, section: str, key: str, value: object) -> None:
    loaded = load_node_settings(None, {f"COSTREAM_{variable}": text}, {} if "AUTH" in variable else OWN_KEY)
    assert getattr(getattr(loaded, section), key) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[http]\n\nprot = 1", "F:3: unknown key http.prot; did you mean http.port?"),
        ("[htpt]\nport = 1", "F:1: unknown key htpt; did you mean http?"),
        ("[http]\nmedia_silence_s = 1", "F:2: unknown key http.media_silence_s; did you mean session.media_silence_s?"),
        ("qqqqqqqq = 1", "F:1: unknown key qqqqqqqq"),
        ('[http]\nport = "7443"', "F:2: http.port = '7443': input should be a valid integer"),
        ("http.port = true", "F:1: http.port = True: input should be a valid integer"),
        ("[http]\nport = 70000", "F:2: http.port = 70000: input should be less than or equal to 65535"),
        ("http = 3", "F:1: http = 3: input should be"),
        ("[session]\nseat_hold_s = nan", "F:2: session.seat_hold_s = nan: input should be"),
        ("[session]\nseat_hold_s = 0", "F:2: session.seat_hold_s = 0: input should be greater than 0"),
        ('[media]\nadvertise = ["here"]', "F:2: media.advertise.0 = 'here': must be an IPv4 or IPv6 address"),
        ('[link]\nadvertise = ["relay-a"]', "F:2: link.advertise.0 = 'relay-a': must be host:port such as"),
        ('[link]\nadvertise = ["-:7444"]', "F:2: link.advertise.0 = '-:7444': must name a host"),
        ('[link]\nadvertise = ["[x]:7444"]', "F:2: link.advertise.0 = '[x]:7444': must be an IPv4 or IPv6 address"),
        ('[link]\ncertificate = "a"', "F:1: link: certificate, key and ca are set together or not at all"),
        ('[media]\nplane = "rust"', "F:2: media.plane = 'rust': input should be 'auto', 'native' or 'reference'"),
        ('[store]\nurl = "localhost"', "F:2: store.url = 'localhost': must be \"embedded\", redis://"),
        ('[http]\ntls_cert = "a"', "F:1: http: tls_cert and tls_key are set together or not at all"),
        ("[plane]\nestimate_min_bps = 2000000", "F:1: plane: estimate_min_bps <= estimate_start_bps"),
        ('[cluster]\ncontrol_url = "relay-1:7443"', "F:2: cluster.control_url = 'relay-1:7443': must be https://"),
        ('[cluster]\ncontrol_url = "https://a@b"', "F:2: cluster.control_url = 'https://a@b': must be https://"),
        ("[cluster]\nheartbeat_s = 4", "F:1: cluster: expiry_s has to be at least twice heartbeat_s"),
        ("[http]\nport = ", "F: is not TOML: "),
        ("[http]\nport = 1\nport = 2", "F: is not TOML: "),
    ],
)
def test_a_wrong_file_names_line_and_nearest_key(text: str, expected: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path).startswith(expected)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    told = refusal("[http]\nport = -1\nprot = 1", tmp_path, {"COSTREAM_LIMITS__SSRC": "1", "COSTREAM_LOG__LEVEL": "x"})
    assert len(told.splitlines()) == 4
    assert "environment variable COSTREAM_LIMITS__SSRC: unknown key limits.ssrc; did you mean limits.ssrcs?" in told
    assert "environment variable COSTREAM_LOG__LEVEL: log.level = 'x'" in told


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(SettingsError, match=r"flag http\.prot: unknown key http\.prot; did you mean http\.port\?"):
        load_node_settings(None, {}, {"http.prot": "1"})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (1 << 20) + b"\n"])
def test_a_file_that_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"relay\.toml: is "):
        load_node_settings(path, {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        load_node_settings(tmp_path / "none.toml", {})


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "hunter2" not in refusal('[auth.keys]\na = "hunter2"', tmp_path)
    assert "hunter2" not in refusal('[auth]\nkeys = "hunter2"', tmp_path)
    assert "hunter2" not in refusal("[auth.keys]\na = ['hunter2']", tmp_path)
    assert "s" * 32 not in repr(load_node_settings(None, {}, OWN_KEY))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        NodeSettings().http.port = 1


@pytest.mark.parametrize("keys", [{}, {DEV_KEY_ID: "s" * 32}, {"mine": DEV_SECRET}])
def test_only_dev_starts_with_the_known_key(keys: dict[str, str]) -> None:
    for load in (load_node_settings, load_signaling_settings):
        with pytest.raises(SettingsError, match=r"auth\.keys"):
            load(None, {}, {"auth.keys": keys})


def test_signaling_ignores_variables_of_nodes_but_not_wrong_ones() -> None:
    load_signaling_settings(None, {"COSTREAM_MEDIA__PORT": "1"}, OWN_KEY)
    with pytest.raises(SettingsError, match="COSTREAM_MEDIA__PROT"):
        load_signaling_settings(None, {"COSTREAM_MEDIA__PROT": "1"}, OWN_KEY)


def test_dev_stays_on_loopback_with_the_known_key() -> None:
    dev = dev_settings(False, {})
    assert dev.auth.keys == {DEV_KEY_ID: DEV_SECRET}
    assert {dev.http.host, dev.http.plain_host, dev.media.host, *dev.media.advertise} == {"127.0.0.1"}


def test_dev_on_the_lan_makes_a_new_key_each_time() -> None:
    first, second = dev_settings(True, {}), dev_settings(True, {})
    assert first.http.host == first.media.host == "0.0.0.0"
    assert first.http.plain_host == "127.0.0.1"
    assert not set(first.auth.keys.items()) & set(second.auth.keys.items())
    assert not {DEV_KEY_ID, DEV_SECRET} & {*first.auth.keys, *first.auth.keys.values()}


def test_dev_takes_overrides_but_never_exposes_the_known_key() -> None:
    dev = dev_settings(False, {"COSTREAM_ROOM__AUTO_CREATE": "false"}, {"http.port": 8443})
    assert (dev.room.auto_create, dev.http.port) == (False, 8443)
    with pytest.raises(SettingsError, match="--lan"):
        dev_settings(False, {"COSTREAM_HTTP__HOST": "0.0.0.0"})
    own = dev_settings(False, {"COSTREAM_HTTP__HOST": "0.0.0.0"}, OWN_KEY)
    assert own.auth.keys == OWN_KEY["auth.keys"]


_LINES = st.sampled_from(
    ["[http]", "[auth.keys]", "port = 1", "http.port = 2", "a = '''", "'''", '"x y" = 3', "[[x]]", "port = [", "]", ""]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(_LINES, max_size=8).map("\n".join)))
def test_any_text_is_settings_or_a_settings_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, newline="")
    try:
        loaded = read_settings(NodeSettings, path)
    except SettingsError:
        return
    assert set(loaded.model_dump()) == {key[0] for key in walk_keys(NodeSettings)}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(".".join(key) for key in walk_keys(NodeSettings))), st.text(max_size=40))
def test_any_value_is_settings_or_a_settings_error(key: str, text: str) -> None:
    try:
        read_settings(NodeSettings, None, {}, {key: text})
    except SettingsError as error:
        assert key.split(".")[0] in str(error)  # noqa: PT017 - either outcome is right


def test_lines_are_found_in_the_shipped_file() -> None:
    text = (CONFIGS / "relay.toml").read_text()
    lines = key_lines(text)
    tree = tomllib.loads(text)
    for section, keys in tree.items():
        for key in keys:
            line = text.splitlines()[lines[section, key] - 1]
            assert line.startswith((f"{key} =", f"[{section}.{key}]"))


def test_endpoints_of_webhooks_come_from_the_environment_and_keep_their_secrets(tmp_path: Path) -> None:
    secret = "whsec_" + "QUFB" * 10
    environ = {"COSTREAM_WEBHOOKS__ENDPOINTS": f'{{"b": {{"url": "https://example.com/", "secrets": ["{secret}"]}}}}'}
    loaded = load_signaling_settings(None, environ, OWN_KEY)
    assert loaded.webhooks.endpoints["b"].secrets == (secret,)
    assert secret not in repr(loaded)
    told = refusal('[webhooks.endpoints.b]\nurl = "https://example.com/"\nsecrets = ["whsec_hidden"]\n', tmp_path)
    assert "F:3: webhooks.endpoints.b.secrets.0" in told
    assert "hidden" not in told
    assert "events.0" in refusal(
        f'[webhooks.endpoints.b]\nurl = "https://example.com/"\nsecrets = ["{secret}"]\nevents = ["A"]\n', tmp_path
    )
