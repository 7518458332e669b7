"""Real processes under faults: a cluster to be hurt, clients that write down what they saw.

A scenario is data: who runs, what is asked, what goes wrong when (`Scenario`). `play` runs it and
returns what the clients saw; `verify` holds the promise against it.
"""

from tests.faults.harness.cluster import Cluster
from tests.faults.harness.processes import (
    LOAD_LIMIT,
    ROOT,
    TICK,
    Member,
    PlainNats,
    free_ports,
    until,
)
from tests.faults.harness.scenario import Event, Scenario, play, strike
from tests.faults.harness.seen import Seen, verify

__all__ = [
    "LOAD_LIMIT",
    "ROOT",
    "TICK",
    "Cluster",
    "Event",
    "Member",
    "PlainNats",
    "Scenario",
    "Seen",
    "free_ports",
    "play",
    "strike",
    "until",
    "verify",
]
