"""Tokens: what is minted verifies; everything else is refused with a reason."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import BadRequest
from signaling.tokens import LEEWAY_S, MAX_TOKEN_BYTES, ROLES, Claims, InvalidToken, mint, verify

NOW = 1_763_697_600.0
KEYS = {"one": "1" * 32, "two": "2" * 32}
GOOD = {"iss": "one", "sub": "alice", "room": "demo", "role": "guest", "exp": NOW + 60, "iat": NOW}


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def sign(claims: object, header: object = None, secret: str = KEYS["one"]) -> str:
    """Sign by hand (RFC 7515 appendix A.1), so that anything at all can be signed."""
    text = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = (
        f"{encode(json.dumps({'alg': 'HS256', 'typ': 'JWT'} if header is None else header).encode())}.{encode(text)}"
    )
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("key_id", [None, "one", "two"])
def test_minted_verifies(role: str, key_id: str | None) -> None:
    token = mint(KEYS, room="demo", identity="Zoë 连麦", role=role, ttl_s=60, now=NOW + 0.9, key_id=key_id)
    claims = verify(token, KEYS, NOW)
    assert (claims.key_id, claims.identity, claims.room) == (key_id or "one", "Zoë 连麦", "demo")
    assert (claims.role, claims.issued, claims.expires) == (role, NOW, NOW + 60)
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "==")) == {"alg": "HS256", "typ": "JWT"}


def test_each_token_has_its_own_id() -> None:
    ids = {
        verify(mint(KEYS, room="r", identity="i", role="viewer", ttl_s=1, now=NOW), KEYS, NOW).token_id for _ in "12"
    }
    assert len(ids) == 2


def test_a_token_made_elsewhere_verifies() -> None:
    assert verify(sign(GOOD), KEYS, NOW) == Claims("one", "alice", "demo", "guest", int(NOW) + 60, int(NOW), "")
    assert verify(sign(without("iat")), KEYS, NOW).issued == NOW


def test_expiry_has_a_leeway() -> None:
    token = sign(GOOD)
    verify(token, KEYS, NOW + 60 + LEEWAY_S - 0.5)
    with pytest.raises(InvalidToken, match="has expired"):
        verify(token, KEYS, NOW + 60 + LEEWAY_S)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (without("exp"), "'exp' must be a time"),
        ({**GOOD, "exp": "tomorrow"}, "'exp' must be a time"),
        ({**GOOD, "exp": True}, "'exp' must be a time"),
        ({**GOOD, "exp": 10**400}, "'exp' must be a time"),
        ({**GOOD, "exp": float("inf")}, "'exp' must be a time"),
        ({**GOOD, "exp": float("nan")}, "'exp' must be a time"),
        ({**GOOD, "exp": -1}, "'exp' must be a time"),
        ({**GOOD, "iat": NOW + 60}, "issued in the future"),
        ({**GOOD, "iat": None}, "'iat' must be a time"),
        ({**GOOD, "nbf": NOW + 60}, "not valid yet"),
        ({**GOOD, "iss": "three"}, "unknown key"),
        ({**GOOD, "iss": ["one"]}, "'iss' must be a string"),
        (without("iss"), "'iss' must be a string"),
        (without("sub"), "'sub' must have"),
        ({**GOOD, "sub": ""}, "'sub' must have"),
        ({**GOOD, "sub": " alice"}, "'sub' must have"),
        ({**GOOD, "sub": "a\nb"}, "'sub' must have"),
        ({**GOOD, "sub": "\ud800"}, "'sub' must have"),
        ({**GOOD, "room": "r" * 129}, "'room' must have"),
        ({**GOOD, "room": 7}, "'room' must have"),
        ({**GOOD, "role": "god"}, "'role' must be one of"),
        ({**GOOD, "role": ["owner"]}, "'role' must be one of"),
        ({**GOOD, "jti": 7}, "'jti' must be a string"),
        ({**GOOD, "sub": "a" * MAX_TOKEN_BYTES}, "exceeds 4096 bytes"),
        ([GOOD], "JSON object"),
        ("text", "JSON object"),
        (b"", "JSON object"),
        (b"{", "JSON object"),
        (b"[" * 2900, "JSON object"),
        (b"\xff", "JSON object"),
    ],
)
def test_bad_claims_are_refused(claims: object, reason: str) -> None:
    with pytest.raises(InvalidToken, match=reason):
        verify(sign(claims), KEYS, NOW)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS512"},
        {"alg": "RS256"},
        {"alg": ["HS256"]},
        {"alg": None},
        {"typ": "JWT"},
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        [],
        "HS256",
    ],
)
def test_only_hs256_is_taken(header: object) -> None:
    token = sign(GOOD, header)
    for candidate in (token, token.rpartition(".")[0] + "."):
        with pytest.raises(InvalidToken):
            verify(candidate, KEYS, NOW)


def test_a_wrong_signature_is_refused() -> None:
    token = sign(GOOD)
    other = sign({**GOOD, "role": "owner"})
    forged = ".".join([*other.split(".")[:2], token.split(".")[2]])
    for bad in (forged, sign(GOOD, secret=KEYS["two"]), token[:-4], token + "A" * 4, token.rpartition(".")[0] + "."):
        with pytest.raises(InvalidToken, match="signature"):
            verify(bad, KEYS, NOW)


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.c", "é.b.c", "a.b.c.d.e", "\x00" * 9])
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        verify(token, KEYS, NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"room": ""},
        {"identity": "x" * 129},
        {"role": "god"},
        {"ttl_s": 0},
        {"ttl_s": 10**12},
        {"key_id": "three"},
        {"keys": {}},
        {"keys": {"k" * 4000: "s" * 32}},
    ],
)
def test_minting_refuses_what_would_not_verify(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"room": "r", "identity": "i", "role": "guest", "ttl_s": 60, "now": NOW, **wrong}
    with pytest.raises(BadRequest):
        mint(arguments.pop("keys", KEYS), **arguments)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "nbf", "jti"]), _JSON), st.dictionaries(st.sampled_from(["alg"]), _JSON))
def test_any_claims_verify_or_are_invalid(claims: dict[str, Any], header: dict[str, Any]) -> None:
    try:
        result = verify(sign({**GOOD, **claims}, {"alg": "HS256", **header}), KEYS, NOW)
    except InvalidToken:
        return
    assert result.role in ROLES
    assert result.expires > NOW - LEEWAY_S


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}", fullmatch=True))
def test_any_text_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        verify(token, KEYS, NOW)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.characters(codec="ascii"))
def test_a_changed_character_never_changes_what_is_believed(position: int, character: str) -> None:
    token = sign(GOOD)
    position %= len(token)
    changed = token[:position] + character + token[position + 1 :]
    try:
        assert verify(changed, KEYS, NOW) == verify(token, KEYS, NOW)
    except InvalidToken:
        assert changed != token  # the last character may differ in unused bits only (RFC 4648 3.5)
