"""The worker's side: leases, digests, stalls of its own."""

from __future__ import annotations

from shared import wire
from tests.unit.ledger_bench import Case
from workers.ledger import LINK_LIMIT
from workers.peers import DIGEST_EVERY, LEASE


def test_the_lease_of_a_silent_gateway_ends_its_requests() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.wait(LEASE - 0.1)
    assert case.ledger.running == 1
    case.wait(0.2)
    assert (case.ledger.running, case.io.aborted) == (0, [exec_])
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)]
    case.wait(1.0)
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)][len(digests) :]
    assert digests, "its absence from a digest is how the gateway learns of it"
    assert digests[-1].entries == ()


def test_a_long_digest_goes_out_in_slices() -> None:
    case = Case()
    execs = [case.take(f"R{number}") for number in range(150)]
    for exec_ in execs:
        case.ledger.on_control(wire.Go(exec_, None))
    case.wait(DIGEST_EVERY + 0.2)
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)]
    round_ = digests[-3:]
    assert [len(digest.entries) for digest in round_] == [64, 64, 22]
    assert [entry.exec for digest in round_ for entry in digest.entries] == execs
    first = round_[0].seq
    assert [(digest.seq, digest.began, digest.last) for digest in round_] == [
        (first, first, False), (first + 1, first, False), (first + 2, first, True),
    ]  # fmt: skip


def test_a_gateway_that_knows_no_slices_gets_all_in_one() -> None:
    case = Case()
    case.slices = False
    for number in range(150):
        case.ledger.on_control(wire.Go(case.take(f"R{number}"), None))
    case.wait(DIGEST_EVERY + 0.2)
    digests = [frame for frame in case.io.told if isinstance(frame, wire.Digest)]
    assert len(digests[-1].entries) == 150
    assert digests[-1].last


def test_the_slices_of_a_round_follow_each_other_whoever_else_is_told() -> None:
    case = Case()
    for number in range(150):
        case.ledger.on_control(wire.Go(case.take(f"R{number}"), None))
    told: list[tuple[str, int]] = []

    def tell(gateway: str, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Digest):
            told.append((gateway, frame.seq))

    case.io.tell = tell  # type: ignore[method-assign]
    for _ in range(200):
        case.ledger.on_gateway_beat(wire.GatewayBeat("other", slices=True))
        case.wait(0.02)
    mine = [seq for gateway, seq in told if gateway == "g"]
    assert len({gateway for gateway, _ in told}) == 2
    rounds = [mine[place : place + 3] for place in range(0, len(mine) - 2, 3)]
    assert all(last - first == 2 for first, _, last in rounds), rounds


def test_a_stall_of_this_process_is_held_against_nobody() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.wait(0.5)
    case.io.time += 30.0
    case.ledger.tick()
    assert case.ledger.running == 1


def test_without_its_link_a_worker_gives_up() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    case.ledger.link_lost()
    case.wait(LINK_LIMIT - 0.1)
    assert case.ledger.running == 1
    case.wait(0.2)
    assert case.ledger.settled


def test_an_answer_to_a_digest_frees_the_record_and_cancels() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.Go(exec_, None))
    for token in range(4):
        case.generate(exec_, token, first=token == 0)
    case.ledger.on_control(wire.DigestReply("g", 1, (), ((exec_, (3,)),), ()))
    assert case.ledger.kept == 1
    case.ledger.on_control(wire.DigestReply("g", 2, (exec_,), (), ()))
    assert case.ledger.settled
    assert case.ledger.kept == 0


def test_a_digest_that_crosses_a_claim_cancels_nothing() -> None:
    case = Case()
    exec_ = case.take()
    case.ledger.on_control(wire.DigestReply("g", 1, (exec_,), (), ()))
    assert case.ledger.running == 1
