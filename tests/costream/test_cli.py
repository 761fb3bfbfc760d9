"""The command line as a shell sees it: output, exit codes, sentences for mistakes."""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import costream.cli
from relay.settings import DEV_KEY_ID, DEV_SECRET, NodeSettings, SignalingSettings
from signaling.tokens import InvalidToken, verify

DEV_KEYS = {DEV_KEY_ID: DEV_SECRET}
OWN = {"studio": "s" * 32}
TOKEN = ["token", "--room", "demo", "--identity", "alice", "--role", "guest"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COSTREAM_")]:
        monkeypatch.delenv(name)


class Shell:
    """Runs `costream …` in this process, through `main` so that errors become exit codes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["costream", *words])
        with pytest.raises(SystemExit) as ended:
            costream.cli.main()
        output = self._capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Records what a command would start: servers run in tests of their own."""
    calls: list[tuple[str, Any, Any]] = []
    for module, names in (("costream.dev", ["run_dev"]), ("costream.serve", ["run_relay", "run_signaling"])):
        recorder = types.ModuleType(module)
        for name in names:
            setattr(
                recorder, name, lambda settings, with_demo=None, name=name: calls.append((name, settings, with_demo))
            )
        monkeypatch.setitem(sys.modules, module, recorder)
    return calls


def test_every_command_has_help() -> None:
    listed = CliRunner().invoke(costream.cli.app, ["--help"])
    for command in ("dev", "relay", "signaling", "token", "watch", "doctor", "version"):
        assert command in listed.output
        assert CliRunner().invoke(costream.cli.app, [command, "--help"]).exit_code == 0


def test_version(shell: Shell) -> None:
    code, out, _ = shell("version")
    assert code == 0
    assert out.startswith("costream")


def test_dev_token_opens_the_dev_room(shell: Shell) -> None:
    code, out, _ = shell(*TOKEN)
    assert code == 0
    claims = verify(out.strip(), DEV_KEYS, time.time())
    assert (claims.identity, claims.room, claims.role) == ("alice", "demo", "guest")
    assert claims.expires - claims.issued == 3600


def test_token_with_an_own_key(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(f'[auth.keys]\nother = "{"o" * 32}"\nstudio = "{OWN["studio"]}"\n')
    for words in (
        ["--key-id", "studio", "--secret", OWN["studio"], "--ttl", "60"],
        ["--config", str(config), "--key-id", "studio"],
    ):
        _, out, _ = shell(*TOKEN, *words)
        assert verify(out.strip(), OWN, time.time()).key_id == "studio"
    monkeypatch.setenv("COSTREAM_AUTH__KEYS", f'{{"studio": "{OWN["studio"]}"}}')
    _, out, _ = shell(*TOKEN)
    assert verify(out.strip(), OWN, time.time()).key_id == "studio"
    with pytest.raises(InvalidToken):
        verify(out.strip(), DEV_KEYS, time.time())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--role", "god"], "role must be one of owner, guest"),
        (["--room", ""], "room must have 1 to 128"),
        (["--key-id", "studio"], "--key-id studio needs its secret"),
        (["--config", "none.toml"], "none.toml: cannot be read"),
    ],
)
def test_token_mistakes_get_a_sentence(shell: Shell, words: list[str], told: str) -> None:
    code, out, err = shell(*TOKEN, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


def test_dev_options_become_settings(shell: Shell, started: list[tuple[str, NodeSettings, bool]]) -> None:
    assert shell("dev", "--demo", "--port", "9443", "--http-port", "0", "--set", "room.max_seats=4")[0] == 0
    [(name, settings, demo)] = started
    assert (name, demo) == ("run_dev", True)
    assert (settings.http.port, settings.media.port, settings.http.plain_port) == (9443, 9443, 0)
    assert settings.room.max_seats == 4
    assert settings.auth.keys == DEV_KEYS
    assert shell("dev", "--lan")[0] == 0
    assert started[1][1].http.host == "0.0.0.0"
    assert DEV_KEY_ID not in started[1][1].auth.keys


def test_relay_and_signaling_read_their_file(
    shell: Shell, started: list[tuple[str, SignalingSettings, None]], tmp_path: Path
) -> None:
    config = tmp_path / "costream.toml"
    config.write_text(f'[http]\nport = 1\n[auth.keys]\nstudio = "{OWN["studio"]}"\n')
    assert shell("relay", "--config", str(config), "--set", "http.port=2")[0] == 0
    assert shell("signaling", "-c", str(config))[0] == 0
    assert [(name, settings.http.port) for name, settings, _ in started] == [("run_relay", 2), ("run_signaling", 1)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["relay"], "auth.keys is empty"),
        (["relay", "--set", f'auth.keys={{"devkey": "{DEV_SECRET}"}}'], "only `costream dev` may use it"),
        (["signaling", "--set", "media.port=1"], "unknown key media"),
        (["relay", "--set", "http.prot=1"], "did you mean http.port?"),
        (["relay", "--set", "port"], "write it as SECTION.KEY=VALUE"),
        (["dev", "--set", "http.host=0.0.0.0"], "use --lan"),
    ],
)
def test_wrong_settings_do_not_start(shell: Shell, started: list[object], words: list[str], told: str) -> None:
    code, _, err = shell(*words)
    assert code == 2
    assert told in err
    assert not started


def test_doctor_reports_wrong_settings_as_a_failure(shell: Shell, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text("[http]\nprot = 1\nport = 'x'\n")
    code, out, _ = shell("doctor", "--config", str(config))
    assert code == 1
    assert out.count("fail settings") == 2
    assert "relay.toml:2: unknown key http.prot; did you mean http.port?" in out


def test_doctor_says_ok_and_ends_with_zero(shell: Shell, tmp_path: Path) -> None:
    wishes = ["http.port=0", "media.port=0", "http.plain_port=0", f"node.state_dir={tmp_path}"]
    code, out, _ = shell("doctor", *(word for wish in wishes for word in ("--set", wish)))
    assert code == 0, out
    for subject in ("HTTPS port", "media port", "candidates", "TLS", "clock", "open files", "plane", "store", "UDP"):
        assert subject in out


def test_watch_tells_when_nobody_answers(shell: Shell) -> None:
    code, _, err = shell("watch", "demo", "--url", "http://127.0.0.1:1", "--once")
    assert code == 1
    assert "http://127.0.0.1:1 does not answer" in err
