"""The protocol under seeded faults in virtual time: the real machines, a model of NATS around them.

world.py     the clock, the event heap, processes that are killed, paused, woken
broker.py    NATS core and JetStream as far as the protocol leans on them
member.py    a process with a connection to the broker
gateway.py   a gateway: the real Router
worker.py    a worker: the real Ledger and Pulls
engines.py   what steps: a chain of tokens, or a function that yields while its window is open
calls.py     what a function is asked for, and every item that it must give
clients.py   what a client saw, and nothing else; how it reads
faults.py    a seed becomes a schedule: requests, faults, times
schedule.py  one schedule, from the first request until nothing is left
checker.py   what must hold of what the clients saw, and of what is left behind
run.py       one schedule, or many on all cores
"""
