"""The cache of HLS files: bounded in bytes, and empty of what nobody asks for any more."""

from __future__ import annotations

from signaling.egress.files import KEEP_S, ByteCache


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_keeps_the_newest_within_its_bound() -> None:
    cache = ByteCache(100, Clock())
    for number in range(10):
        cache.put(f"n{number}", bytes(20))
        assert cache.size <= 100
    assert [number for number in range(10) if cache.get(f"n{number}") is not None] == [5, 6, 7, 8, 9]
    assert cache.get("n5") == bytes(20)  # which makes n6 the one that was used longest ago
    cache.put("more", bytes(20))
    assert [cache.get(name) is not None for name in ("n6", "n5", "more")] == [False, True, True]


def test_keeps_nothing_that_is_too_large_for_it_and_nothing_twice() -> None:
    cache = ByteCache(100, Clock())
    cache.put("large", bytes(26))
    assert cache.get("large") is None
    cache.put("n", b"first")
    cache.put("n", b"second")
    assert (cache.get("n"), cache.size) == (b"first", 5)


def test_forgets_what_nobody_asked_for_in_a_while() -> None:
    clock = Clock()
    cache = ByteCache(1 << 20, clock)
    for number in range(600):  # two files a second for five minutes, and one that every newcomer asks for
        cache.put(f"seg{number}", bytes(100))
        if cache.get("init") is None:
            assert number == 0
            cache.put("init", bytes(10))
        clock.now += 0.5
        assert cache.size <= 10 + 100 * (2 * KEEP_S + 1)
    assert cache.get("seg598") is not None
    assert cache.get("seg500") is None
    clock.now += KEEP_S + 1
    assert cache.get("init") is None
    assert cache.size == 0
