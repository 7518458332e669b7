"""The protocol under seeded faults in virtual time: the real machines, a model of NATS around them.

world.py     the clock, the event heap, processes that are killed, paused, woken
broker.py    NATS core and JetStream as far as the protocol leans on them
parts.py     a gateway (the real Router), a worker (the real Ledger and Pulls), a chain engine
clients.py   what a client saw, and nothing else
faults.py    a seed becomes a schedule: requests, faults, times
checker.py   what must hold of what the clients saw, and of what is left behind
run.py       one schedule, or many on all cores
"""
