"""Run schedules: one by its seed, or many on all cores.

python -m tests.simulator.run 10000            seeds 0 to 9999
python -m tests.simulator.run 1 --seed 42 -v   one, told
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

from shared import wire
from shared.errors import MillstreamError
from tests.simulator.broker import Broker, Weather
from tests.simulator.checker import check
from tests.simulator.clients import Client
from tests.simulator.faults import FAULTS_UNTIL, Ask, Fault, Plan, plan
from tests.simulator.parts import MODEL, POISON, Gateway, Worker
from tests.simulator.world import World

QUEUE_SECONDS = 60.0
LIMIT = 90.0
SETTLE = 0.5
DRAIN_GRACE = 0.3
CRASH_RESTART = 0.3


class Schedule:
    """One schedule.

    Args:
        seed: Decides the plan, and every chance on the way.
        chosen: A plan to follow instead of the seed's.

    Attributes:
        clients: Who asked.
        faults_end: When the last trouble was over.
    """

    def __init__(self, seed: int, chosen: Plan | None = None) -> None:
        self.plan = chosen or plan(seed)
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

    def run(self) -> list[str]:
        """Let it happen; what was violated."""
        world = self.world
        for ask in self.plan.asks:
            world.at(ask.at, self._ask, ask)
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
        return check(self)

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
        worker = Worker(self.world, self.broker, name, self.plan.step, self.plan.slots)
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

    def _ask(self, ask: Ask) -> None:
        number = len(self.clients)
        chance = self.world.random
        prompt = tuple(chance.randrange(1000) for _ in range(chance.randint(1, 6)))
        if ask.poison:
            prompt = (POISON, *prompt)
        client = Client(self.world, f"c{number}", prompt, ask.tokens, ask.deadline)
        self.clients.append(client)
        gateway = self.gateways[ask.gateway]
        self.asked[gateway.name].append(client)
        if not gateway.up:
            client.cut = self.world.now
            return
        request_id = f"R{number:04d}"
        self.by_id[request_id] = client
        request = wire.Request(
            id=request_id, attempt=0, gateway=gateway.name, request_id=client.name, model=MODEL,
            prompt=None, messages=None, token_ids=prompt,
            sampling=wire.Sampling(max_tokens=ask.tokens), urgency=ask.urgency,
        )  # fmt: skip
        gateway.receive(self._open, gateway, client, request, ask)

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


def run_seed(seed: int) -> list[str]:
    """Run one schedule; what was violated."""
    return Schedule(seed).run()


def run_many(seeds: Iterable[int], processes: int) -> dict[int, list[str]]:
    """Run schedules on several cores; the violations by seed."""
    seeds = list(seeds)
    if processes <= 1:
        results = map(run_seed, seeds)
        return {seed: found for seed, found in zip(seeds, results, strict=True) if found}
    with ProcessPoolExecutor(processes) as pool:
        parallel = pool.map(run_seed, seeds, chunksize=50)
        return {seed: found for seed, found in zip(seeds, parallel, strict=True) if found}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.verbose:
        print(plan(options.seed))
    bad = run_many(range(options.seed, options.seed + options.count), options.processes)
    for seed, found in bad.items():
        print(f"seed {seed}:", *found[:5], sep="\n  ")
    seconds = time.perf_counter() - started
    print(f"{options.count} schedules in {seconds:.1f} s, {len(bad)} with violations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
