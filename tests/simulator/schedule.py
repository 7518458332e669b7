"""One schedule: who takes part, what is asked, what goes wrong, until nothing is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

from shared import wire
from shared.errors import MillstreamError
from tests.simulator.broker import Broker, Weather
from tests.simulator.calls import Call
from tests.simulator.clients import CallClient, Client, TextClient
from tests.simulator.engines import POISON
from tests.simulator.faults import FAULTS_UNTIL, Ask, Fault, Manner, Plan, items_of
from tests.simulator.gateway import Gateway
from tests.simulator.worker import MODEL, Worker
from tests.simulator.world import World

QUEUE_SECONDS = 60.0
LIMIT = 90.0
SETTLE = 0.5
DRAIN_GRACE = 0.3
CRASH_RESTART = 0.3


class Schedule:
    """One schedule.

    Args:
        seed: Decides every chance on the way.
        plan: What is asked and what goes wrong.

    Attributes:
        clients: Who asked.
        faults_end: When the last trouble was over.
    """

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.world = World(seed)
        self.broker = Broker(self.world, events=self.plan.events)
        self.clients: list[Client] = []
        self.by_id: dict[str, Client] = {}
        self.asked: defaultdict[str, list[Client]] = defaultdict(list)
        self.every_worker: list[Worker] = []
        self.every_gateway: list[Gateway] = []
        self.faults_end = 0.0
        self.deaths = 0
        self.crashes = 0
        self._restarts = 0
        self.workers = [self._worker(f"w{number}") for number in range(self.plan.workers)]
        self.gateways = [self._gateway(f"g{number}") for number in range(self.plan.gateways)]

    def run(self) -> None:
        """Let it happen, until all have ended and nothing is left, or for too long."""
        world = self.world
        for number, ask in enumerate(self.plan.asks):
            world.at(ask.at, self._ask, ask, self.plan.manners[number])
        for fault in self.plan.faults:
            world.at(fault.at, self._strike, fault)
        world.run_until(FAULTS_UNTIL if self.plan.faults else 3.0)
        quiet_since = None
        while world.now < LIMIT:
            world.run_until(world.now + 0.1)
            if not self.quiet:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = world.now
            elif world.now - quiet_since >= SETTLE and world.now > self.faults_end:
                break

    @property
    def starts(self) -> Counter[str]:
        """How often an engine was given each request."""
        return Counter(
            worker.requests[exec_] for worker in self.every_worker for exec_ in worker.started
        )

    @property
    def quiet(self) -> bool:
        """Whether all have ended and nothing is left."""
        return all(client.over for client in self.clients) and not self.left_behind()

    def left_behind(self) -> list[str]:
        """What has not been cleared away."""
        left: list[str] = []
        left.extend(
            f"{gateway.name}: {list(gateway.router.sessions)}"
            for gateway in self.every_gateway
            if gateway.up and not gateway.router.idle
        )
        for worker in self.every_worker:
            if worker.up and not (worker.ledger.settled and worker.ledger.running == 0):
                left.append(f"{worker.name}: {list(worker.ledger.execs.values())}")
            if worker.up and (worker.engine.running or worker.ledger.kept):
                left.append(f"{worker.name}: {worker.engine.running} jobs, {worker.ledger.kept}")
        for stream in (self.broker.streams or {}).values():
            left.extend(f"queued {message.message_id}" for message in stream.messages.values())
        return left

    # ---- who takes part -------------------------------------------------------------------------

    def _worker(self, name: str) -> Worker:
        worker = Worker(
            self.world, self.broker, name, self.plan.step, self.plan.slots, self.plan.kind
        )
        self.every_worker.append(worker)
        worker.engine.crashed = lambda: self._crashed(worker)
        worker.start()
        return worker

    def _crashed(self, worker: Worker) -> None:
        number = int(worker.base[1:])
        self.crashes += 1
        self.world.after(CRASH_RESTART, self._restart_worker, number, worker)

    def _gateway(self, name: str) -> Gateway:
        gateway = Gateway(self.world, self.broker, name, QUEUE_SECONDS)
        self.every_gateway.append(gateway)
        gateway.start()
        return gateway

    def _ask(self, ask: Ask, manner: Manner) -> None:
        number = len(self.clients)
        name, gateway = f"c{number}", self.gateways[ask.gateway]
        prompt = self._prompt(ask)
        call = Call(
            number, items_of(ask, manner), manner.sizes, manner.burst, manner.fails, manner.late,
            ask.poison,
        )  # fmt: skip
        generates = self.plan.kind == "generation"
        client: Client
        if generates:
            client = TextClient(self.world, name, prompt, ask.tokens, ask.deadline)
        else:
            client = CallClient(self.world, name, call, manner.reader, ask.deadline)
        self.clients.append(client)
        self.asked[gateway.name].append(client)
        if not gateway.up:
            client.cut = self.world.now
            return
        request_id = f"R{number:04d}"
        self.by_id[request_id] = client
        request = wire.Request(
            id=request_id, attempt=0, gateway=gateway.name, request_id=name, model=MODEL,
            prompt=None, messages=None, token_ids=prompt if generates else None,
            sampling=wire.Sampling(max_tokens=ask.tokens), urgency=ask.urgency,
            call=None if generates else call.encode(), ready=generates and number % 2 == 0,
        )  # fmt: skip
        gateway.receive(self._open, gateway, client, request, ask)

    def _prompt(self, ask: Ask) -> tuple[int, ...]:
        chance = self.world.random
        prompt = tuple(chance.randrange(1000) for _ in range(chance.randint(1, 6)))
        return (POISON, *prompt) if ask.poison else prompt

    def _open(self, gateway: Gateway, client: Client, request: wire.Request, ask: Ask) -> None:
        try:
            gateway.open(client, request, ask.deadline)
        except MillstreamError as error:
            client.failed(error)
            return
        if ask.leaves is not None and request.id in gateway.clients:
            self.world.after(ask.leaves, gateway.receive, gateway.leave, request.id)

    # ---- what goes wrong ------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        _, _, kind = fault.kind.partition(":")
        if kind:
            self.workers[fault.target].tear = lambda: self._strike(replace(fault, kind=kind))
            return
        self.faults_end = max(self.faults_end, self.world.now + fault.seconds)
        strikes: dict[str, Callable[[Fault], None]] = {
            "kill_worker": self._kill_worker,
            "vanish_worker": self._vanish_worker,
            "pause_worker": lambda f: self._pause(self.workers[f.target], f),
            "hang_engine": self._hang_engine,
            "drain_worker": self._drain_worker,
            "cut_worker": lambda f: self._cut(self.workers[f.target]),
            "dark_worker": lambda f: self._darken(self.workers[f.target]),
            "pause_gateway": lambda f: self._pause(self.gateways[f.target], f),
            "kill_gateway": self._kill_gateway,
            "cut_gateway": lambda f: self._cut(self.gateways[f.target]),
            "dark_gateway": lambda f: self._darken(self.gateways[f.target]),
            "broker": self._kill_broker,
            "drops": lambda f: self._weather(f, Weather(drop=0.05)),
            "storm": lambda f: self._weather(f, Weather(drop=0.1, duplicate=0.1, delay=0.2)),
        }
        strikes[fault.kind](fault)

    def _kill_worker(self, fault: Fault) -> None:
        self.deaths += 1
        worker = self.workers[fault.target]
        worker.kill()
        self.world.after(fault.seconds, self._restart_worker, fault.target, worker)

    def _vanish_worker(self, fault: Fault) -> None:
        """Its host loses power: nobody says good-bye for it."""
        self.deaths += 1
        worker = self.workers[fault.target]
        if worker.link is not None:
            self.broker.darken(worker.link)
        worker.link = None
        worker.kill()
        self.world.after(fault.seconds, self._restart_worker, fault.target, worker)

    def _restart_worker(self, number: int, former: Worker) -> None:
        if self.workers[number] is former:
            self.workers[number] = self._worker(former.base)

    def _hang_engine(self, fault: Fault) -> None:
        self.deaths += fault.seconds >= 1.5
        engine = self.workers[fault.target].engine
        engine.hung = True

        def wake() -> None:
            engine.hung = False

        self.world.after(fault.seconds, wake)

    def _drain_worker(self, fault: Fault) -> None:
        worker = self.workers[fault.target]
        if not worker.draining:
            worker.receive(worker.drain, DRAIN_GRACE)
            self.world.after(fault.seconds, self._restart_worker, fault.target, worker)

    def _kill_gateway(self, fault: Fault) -> None:
        gateway = self.gateways[fault.target]
        gateway.kill()
        for client in self.asked[gateway.name]:
            if not client.over:
                client.cut = self.world.now
        self._restarts += 1
        name = f"{gateway.name}r{self._restarts}"

        def restart() -> None:
            if self.gateways[fault.target] is gateway:
                self.gateways[fault.target] = self._gateway(name)

        self.world.after(fault.seconds, restart)

    def _pause(self, process: Worker | Gateway, fault: Fault) -> None:
        self.deaths += fault.seconds >= 1.5
        process.pause()
        self.world.after(fault.seconds, process.wake)

    def _cut(self, process: Worker | Gateway) -> None:
        self.deaths += 1
        if process.link is not None:
            self.broker.close(process.link)

    def _darken(self, process: Worker | Gateway) -> None:
        self.deaths += 1
        if process.link is not None:
            self.faults_end = max(self.faults_end, self.world.now + 1.5)
            self.broker.darken(process.link)

    def _kill_broker(self, fault: Fault) -> None:
        if self.broker.up:
            self.broker.kill()
            self.world.after(fault.seconds, lambda: self.broker.restart(lose=fault.lose))

    def _weather(self, fault: Fault, weather: Weather) -> None:
        self.broker.weather = weather

        def clear() -> None:
            if self.broker.weather is weather:
                self.broker.weather = Weather()

        self.world.after(fault.seconds, clear)
