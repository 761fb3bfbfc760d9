"""`make cluster`: a test cluster with two hosts on stage, told what to do by lines on standard input."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from drills.cluster import Cluster
from drills.cluster.config import HTTP_PORT, LINK_PORT, MEDIA_PORT, Extra
from drills.fabric import FabricError, why_no_namespaces
from drills.fabric.impairment_text import HELP as IMPAIRMENTS
from drills.fabric.impairment_text import parse_impairment

ROOM = "demo"
_MOST_ROWS = 40
_HELP = f"""\
status                          who is where, and what is impaired
impair A B [one-way] …          {IMPAIRMENTS}
partition A B [one-way]         nothing gets through
cut HOST                        nothing gets to or from a host
heal [A [B]]                    take back what was done between A and B, to A, or everywhere
counters                        what went from whom to whom, and what became of it
kill|stop|start|restart|pause|resume MEMBER
room NAME                       make a room
quit
A and B are hosts (relay-a), one path of a host (relay-a/1: primary, relay-a/2: backup), or *"""


class Commands:
    """What a line does to a cluster. `do` returns the answer; FabricError and ValueError say what was wrong with it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._verbs: dict[str, Callable[[list[str]], str]] = {
            "impair": self._impair,
            "partition": self._partition,
            "cut": self._cut,
            "heal": self._heal,
            "room": self._room,
            **dict.fromkeys(("kill", "stop", "start", "restart", "pause", "resume"), self._member),
            "help": lambda _: _HELP,
        }

    def do(self, line: str) -> str:
        """Carry out one line other than `status`, `counters` and `quit`."""
        verb, *words = line.split()
        action = self._verbs.get(verb)
        if action is None:
            raise ValueError(f"{verb!r} is no command; `help` lists them")
        return action([verb, *words] if action == self._member else words)

    def _impair(self, words: list[str]) -> str:
        (a, b), rest = _take(words, 2, "impair A B loss=12%")
        both = "one-way" not in rest
        impairment = parse_impairment(word for word in rest if word != "one-way")
        self._cluster.fabric.impair(a, b, impairment, both=both)
        return f"{a} {'<->' if both else '->'} {b}: {' '.join(rest) or 'clear'}"

    def _partition(self, words: list[str]) -> str:
        (a, b), rest = _take(words, 2, "partition A B [one-way]")
        one_way = _only(rest, "one-way")
        self._cluster.fabric.partition(a, b, one_way=one_way)
        return f"nothing gets from {a} to {b}" + ("" if one_way else ", nor back")

    def _cut(self, words: list[str]) -> str:
        (host,), rest = _take(words, 1, "cut HOST")
        _only(rest)
        self._cluster.fabric.cut(host)
        return f"{host} is cut off"

    def _heal(self, words: list[str]) -> str:
        if len(words) > 2:
            raise ValueError("write: heal [A [B]]")
        return f"{self._cluster.fabric.heal(*words)} rules taken back"

    def _room(self, words: list[str]) -> str:
        (room,), rest = _take(words, 1, "room NAME")
        _only(rest)
        self._cluster.make_room(room)
        return "\n".join(pages(self._cluster, room))

    def _member(self, words: list[str]) -> str:
        (verb, name), rest = _take(words, 2, "kill MEMBER")
        _only(rest)
        member = self._cluster[name]
        getattr(member, verb)()
        return f"{name}: {member.state}"


def _take(words: list[str], count: int, form: str) -> tuple[list[str], list[str]]:
    if len(words) < count:
        raise ValueError(f"write: {form}")
    return words[:count], words[count:]


def _only(rest: list[str], word: str = "") -> bool:
    """Whether the optional word is there; ValueError for anything else."""
    if rest not in ([], [word]):
        raise ValueError(f"{' '.join(rest)!r} was not expected here")
    return bool(rest)


def pages(cluster: Cluster, room: str) -> list[str]:
    """The addresses of the pages of a room, each with its token."""
    return [
        f"studio     {cluster.page('studio', room, 'you', 'owner')}",
        f"watch      {cluster.page('watch', room, 'watcher', 'viewer')}",
        f"dashboard  {cluster.page('dashboard', room, 'observer', 'moderator')}",
    ]


def status(cluster: Cluster) -> Iterable[Table | str]:
    """Members and rules."""
    members = Table("member", "state", "region", "address", "backup path", "ports", box=None)
    for member in cluster.members.values():
        place = member.place
        ports = {"store": "", "signaling": f"{HTTP_PORT}", "relay": f"{HTTP_PORT} udp {MEDIA_PORT} link {LINK_PORT}"}
        second = place.addresses[1] if len(place.addresses) > 1 else ""
        members.add_row(member.name, member.state, place.region, place.addresses[0], second, ports[place.role])
    yield members
    yield f"logs and settings: {cluster.directory}"
    found = cluster.fabric.counters()
    rules = cluster.rules()
    yield "\n".join(f"{rule['src']} -> {rule['dst']}: {rule['impairment'] or 'clear'}" for rule in rules) or "no faults"
    yield f"forwarder: {found['unroutable']} packets without a way, {found['refused']} refused"


def counters(cluster: Cluster) -> Table:
    """The busiest directions."""
    table = Table("from", "to", "entered", "delivered", "lost", "holed", "overflow", "waiting", box=None)
    hosts = cluster.fabric.hosts
    lanes = sorted(cluster.fabric.counters()["lanes"], key=lambda each: -each["entered"])
    for each in lanes[:_MOST_ROWS]:
        keys = ("entered", "delivered", "lost", "black_holed", "overflowed", "in_flight")
        ends = (_endpoint(hosts, each["from"], each["src"]), _endpoint(hosts, each["to"], each["dst"]))
        table.add_row(*ends, *(str(each[key]) for key in keys))
    return table


def _endpoint(hosts: Mapping[str, Sequence[str]], host: str, address: str) -> str:
    """As the commands take it."""
    addresses = hosts[host]
    return f"{host}/{addresses.index(address) + 1}" if len(addresses) > 1 else host


def converse(cluster: Cluster, lines: Iterable[str], console: Console) -> None:
    """Do what the lines say, until `quit` or their end."""
    commands = Commands(cluster)
    for line in lines:
        try:
            match line.split():
                case []:
                    pass
                case ["quit" | "exit"]:
                    return
                case ["status"]:
                    for part in status(cluster):
                        console.print(part)
                case ["counters"]:
                    console.print(counters(cluster))
                case _:
                    console.print(commands.do(line), markup=False)
        except (FabricError, ValueError) as error:
            console.print(f"no: {error}", markup=False, style="red")


def main(arguments: Sequence[str] | None = None) -> None:
    """Start, talk, take everything away; also on SIGTERM, and when the terminal is closed."""
    options = _options(arguments)
    console = Console(soft_wrap=True, highlight=False)
    reason = why_no_namespaces()
    if reason and options.fabric != "loopback":
        console.print(f"NO NETWORK NAMESPACES: {reason}.", style="bold red")
        console.print(
            "Falling back to loopback addresses and a proxy: UDP between members is impaired as asked, TCP is relayed, "
            "and a client that binds no host's address counts as `outside`.",
            style="red",
        )
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    try:
        cluster = Cluster(
            relays=options.relays,
            signaling=options.signaling,
            regions=options.region or ["local"],
            kind=options.fabric,
            seed=options.seed,
            extra=_relay_settings(options.set),
        )
        with cluster:
            cluster.make_room(ROOM)
            for number in range(1, options.hosts + 1):
                host = cluster.add_client(f"host-{number}")
                cluster.publish(ROOM, f"host-{number}", host=host, publisher=number, tone=300.0 + 110 * number)
            for part in status(cluster):
                console.print(part)
            console.print(*pages(cluster, ROOM), f"API token  {cluster.token('drill', 'service')}", sep="\n")
            console.print(f"other processes: drills.fabric.control.ControlClient(Path('{cluster.fabric.control}'))")
            console.print(_HELP, markup=False)
            converse(cluster, sys.stdin, console)
    except FabricError as error:
        sys.exit(f"drills cluster: {error}")
    except KeyboardInterrupt:
        pass
    console.print("everything has been taken away")


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _relay_settings(assignments: Sequence[str]) -> Extra:
    """SECTION.KEY=VALUE for every relay; a value is JSON, or text where it is none. Raises FabricError."""
    sections: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        section, dot, key = name.partition(".")
        if not (separator and dot and section and key):
            raise FabricError(f"--set {assignment}: write it as SECTION.KEY=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        sections.setdefault(section, {})[key] = value
    return lambda place: sections if place.role == "relay" else {}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m drills cluster", description="Start a test cluster here.")
    parser.add_argument("--relays", type=int, default=3)
    parser.add_argument("--signaling", type=int, default=2)
    parser.add_argument("--region", action="append", help="of the relays, in turn; may be repeated")
    parser.add_argument("--hosts", type=int, default=2, help="synthetic hosts on the stage of room `demo`")
    parser.add_argument("--fabric", choices=["auto", "tun", "loopback"], default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of all random faults")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting of all relays"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
