"""The executor whose workers run where Ray puts them; each has a stand-in here (`relay.workers.stand_in`)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

from pydantic_core import from_json, to_json

from relay.errors import SettingsError, UsageError
from relay.mix.executor import Body, LocalProcess, OnEnd, OnMessage
from relay.mix.video.pool_worker import MODULE
from relay.process.child import Child
from relay.process.control import Message, Wire
from relay.settings import MixRaySettings
from relay.workers.words import Failed, Placed

STAND_IN = "relay.workers"


class Options(NamedTuple):
    """What a stand-in has to know beside what its worker has to."""

    address: str
    cpus: float
    host: str
    report_s: float


class RayWorker(LocalProcess):
    """The stand-in is a local process; the worker is where `where` says."""

    def __init__(self, body: Body, options: Options, wire: Wire[Message], on_message: OnMessage, on_end: OnEnd) -> None:
        self._on_message = on_message
        wire.hear(Placed, Failed)
        arguments = (to_json(options._asdict()).decode(), *body.arguments)
        super().__init__(Child(STAND_IN, arguments, body.fds, wire, self._heard, on_end))
        self.where = "ray:not placed yet"

    def _heard(self, message: Message) -> None:
        match message:
            case Placed(where):
                self.where = f"ray:{where}"
            case Failed(why):
                self._child.kill(why)
            case _:
                self._on_message(message)


class RayActors:
    """See `relay.mix.executor.Executor`."""

    keeps = 0  # a worker without work would keep its machine from being given back

    def __init__(self, settings: MixRaySettings, hang_ms: int) -> None:
        """Raises SettingsError when Ray is not installed."""
        if find_spec("ray") is None:
            raise SettingsError('mix.executor is "ray", and Ray is not installed here: `pip install costream[ray]`')
        self.start_s = float(settings.start_timeout_s)
        self._options = Options(settings.address, settings.cpus, settings.host, min(0.25, hang_ms / 5000))

    def start(self, body: Body, wire: Wire[Message], on_message: OnMessage, on_end: OnEnd) -> RayWorker:
        if body.module != MODULE:
            raise UsageError(f"{body.module} runs beside the relay only")
        return RayWorker(body, self._options, wire, on_message, on_end)


def options_of(argument: str) -> Options:
    """Read what `RayWorker` wrote."""
    return Options(**from_json(argument))
