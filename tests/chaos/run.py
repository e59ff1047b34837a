"""One run: a field, members and publishers, the faults of a schedule, the end, and the verdict."""

import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from .clients import Client, SocketSender
from .faults import FAULTS, GIVEN_UP, Planned, make_faults, make_schedule
from .field import Field, open_field
from .judge import Event, Findings, Sent, judge_history, judge_plain
from .layers import GROUPS, HISTORY, read_position
from .people import People
from .timeline import Timeline

REPORT = 0.5  # seconds that a publisher's report may take
CONVERGE = 15.0  # seconds after the last fault in which all must be well again
MOST = 60.0  # the same, as long as something comes to anybody


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is made of. ``groups``: the kinds of groups, ``history`` and ``plain``."""

    seed: int
    faults: int
    topology: str = "standalone"
    version: str = "7"
    groups: tuple[str, ...] = ("history", "plain", "presence")
    servers: int = 2
    pause: float = 0.05  # seconds, in the mean, between two sends of one sender
    rest: float = 0.25  # seconds, in the mean, between two faults
    only: tuple[str, ...] = ()  # faults; else all that there are
    verbose: bool = False

    @property
    def emphasis(self) -> dict[str, float]:
        """Return which faults come more often than else, and how much."""
        if self.only:
            return {name: float(name in self.only) for name in FAULTS[self.topology]}
        return {"kill_server": 6, "stall_server": 3} if self.groups == ("presence",) else {}

    def __str__(self) -> str:
        return (
            f"--seed {self.seed} --faults {self.faults} --rest {self.rest:g} --pause {self.pause:g} "
            f"--topology {self.topology} --redis {self.version}"
            + "".join(f" --group {group}" for group in self.groups)
            + "".join(f" --only {name}" for name in self.only)
        )


@dataclass
class Result:
    """What came of a run."""

    plan: Plan
    schedule: Sequence[Planned]
    findings: dict[str, Findings] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)  # what is wrong beside the streams
    converged: float = 0.0
    seconds: float = 0.0
    context: list[str] = field(default_factory=list)
    laggards: list[str] = field(default_factory=list)
    people: "People | None" = None

    @property
    def good(self) -> bool:
        people = self.people is None or not self.people.problems
        return people and not self.faults and all(findings.good for findings in self.findings.values())

    def __str__(self) -> str:
        lines = [f"chaos {self.plan}: {len(self.schedule)} faults in {self.seconds:.0f} s"]
        kinds = Counter(planned.name for planned in self.schedule)
        lines.append("  " + ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
        lines.append(f"  all was well {self.converged:.1f} s after the last fault")
        for name, findings in self.findings.items():
            lines.append(f"  {name}")
            lines += [f"    {count:>8}  {what}" for what, count in sorted(findings.counts.items())]
            lines += [f"    PROBLEM {problem}" for problem in findings.problems]
        if self.people is not None:
            lines.append(
                f"  presence: {self.people.truces} truces; at the most {self.people.slowest:.1f} s after a fault "
                f"everybody saw who was there; the oldest ghost had left {self.people.oldest_ghost:.1f} s before"
            )
            lines += [f"    PROBLEM {problem}" for problem in self.people.problems]
        lines += [f"  PROBLEM {fault}" for fault in self.faults]
        lines += [f"  {line}" for line in (*self.laggards, *self.context)]
        lines.append("  good" if self.good else f"  BAD: python -m tests.chaos {self.plan}")
        return "\n".join(lines)


STAYING = {"history": ("member", "member", "narrow", "follower"), "plain": ("member", "shared", "member")}
VISITING = {"history": ("member", "follower"), "plain": ("member", "shared")}
"""What members the groups have; the last of each kind has visitors only: it begins anew again and again."""
WAYS = {"history": ("plain", "keyed", "many", "cancel"), "plain": ("plain", "many", "cancel")}
BETWEEN_TRUCES = 15  # faults, before it is looked whether presences have come to the truth
PUBLISHERS = ("trio", "asyncio", "sync")


def members_of(group: str, kind: str, seed: int) -> list[Client]:
    """Return the clients of a group."""
    visited = group == GROUPS[kind][-1]
    kinds, stays, away = (VISITING[kind], 0.7, 1.0) if visited else (STAYING[kind], 8.0, 0.1)
    return [Client(each, group, number, seed, stays, away) for number, each in enumerate(kinds)]


class Run:
    """A run as it goes."""

    def __init__(self, plan: Plan, ground: Field) -> None:
        self.plan, self.field, self.timeline = plan, ground, Timeline(plan.verbose)
        self.schedule = make_schedule(plan.seed, plan.faults, plan.topology, plan.rest, plan.emphasis)
        self.result = Result(plan, self.schedule)
        self.kinds = [kind for kind in plan.groups if kind in STAYING]
        self.groups = [group for kind in self.kinds for group in GROUPS[kind]]
        if "presence" in plan.groups:
            self.result.people = People(GROUPS["presence"], ground, plan.seed, self.timeline)
        self.ledgers: dict[str, dict[Event, Sent]] = {group: {} for group in self.groups}
        self.noted: dict[tuple[Event, str], float] = {}  # when
        self.clients = [
            member for kind in self.kinds for group in GROUPS[kind] for member in members_of(group, kind, plan.seed)
        ]
        self.sockets = [SocketSender("socket", group, plan.pause, plan.seed) for group in self.groups]
        self.settled, self.over = trio.Event(), trio.Event()
        self.busy = 0

    def note(self, group: str, event: Event, sent: Sent) -> None:
        self.ledgers[group][event] = sent
        self.noted[event, group] = trio.current_time()

    def specs(self, backend: str) -> list[str]:
        """Return the senders of a publishing process."""
        ways = {kind: ("plain",) if backend == "sync" else WAYS[kind] for kind in self.kinds}
        return [
            f"{backend}-{way}:{group}:{way}:{self.plan.pause * 2}"
            for kind in self.kinds
            for index, group in enumerate(GROUPS[kind])
            for way in ways[kind]
            if backend == "sync" or (ways[kind].index(way) + index) % 2 == (backend == "asyncio")
        ]

    async def go(self) -> Result:
        began = trio.current_time()
        async with trio.open_nursery() as members:
            members.start_soon(self.timeline.watch_the_machine)
            async with trio.open_nursery() as publishers:
                start = await self._begin(members, publishers)
                await self._make_faults()
                healed = await self._heal()
                publishers.cancel_scope.deadline = trio.current_time() + CONVERGE
            if publishers.cancel_scope.cancelled_caught:
                self.result.faults.append(f"publishers did not get anything through in {CONVERGE:g} s")
            if not await self._until(self._all_seen, "the last events' arrival", self._unseen):
                await self._tell_of_laggards()
            self.result.converged = trio.current_time() - healed
            await self._look_at_servers(self._with_members, "with members")
            members.cancel_scope.cancel()
        await self._look_at_servers(partial(self._without, start), "without members")
        self._judge()
        self.result.seconds = trio.current_time() - began
        return self.result

    async def _begin(self, members: trio.Nursery, publishers: trio.Nursery) -> dict[int, dict[str, int]]:
        """Start everything; returns what the servers held before anybody came."""
        number = len(self.field.servings)
        async with trio.open_nursery() as starting:
            for serving in self.field.servings:
                starting.start_soon(serving.up)
            for index, backend in enumerate(PUBLISHERS if self.kinds else ()):
                environment = self.field.environment(number + index)
                starting.start_soon(publishers.start, publish_from, self, backend, environment)
        start = {serving.number: await serving.numbers() for serving in self.field.servings}
        if self.result.people is not None:
            self.result.people.start(members)
        for client in self.clients:
            members.start_soon(client.run, self.field, self.settled)
        for sender in self.sockets:
            publishers.start_soon(sender.run, self.field, self.over, self.note)
        await self._until(lambda: all(client.connected for client in self.clients), "the members' entrance")
        return start

    async def _heal(self) -> float:
        """End all faults, and bring everything to its end; returns when the faults ended."""
        await self.field.heal()
        healed = trio.current_time()
        self.timeline.note("healed")
        self.settled.set()
        await self._until(lambda: all(client.connected for client in self.clients), "the members' return")
        await trio.sleep(2 * GIVEN_UP)  # a connection may be dead, and nobody know it yet
        self.over.set()
        return healed

    # ---- faults

    async def _make_faults(self) -> None:
        for start in range(0, len(self.schedule), BETWEEN_TRUCES):
            part = self.schedule[start : start + BETWEEN_TRUCES]
            await make_faults(part, self.field, self.plan.topology, self.timeline)
            if self.result.people is not None:
                await self.field.heal()
                self.timeline.note("truce")
                await self.result.people.converge()
                self.timeline.note("truce is over")

    # ---- the end

    async def _until(self, condition: Callable[[], bool], what: str, missing: Callable[[], str] = lambda: "") -> bool:
        """Wait, as long as something comes to anybody; returns whether it came about."""
        seen, began = 0, trio.current_time()
        deadline = began + CONVERGE
        while not condition():
            if trio.current_time() > min(deadline, began + MOST):
                break
            await trio.sleep(0.02)
            if seen != (seen := sum(len(client.stream) for client in self.clients)):
                deadline = trio.current_time() + CONVERGE
        else:
            return True
        lacking = [client.name for client in self.clients if not client.connected]
        self.result.faults.append(f"{what} did not come about in {CONVERGE:g} s; not connected: {lacking} {missing()}")
        return False

    async def _tell_of_laggards(self) -> None:
        """Say where those stand who have not seen all, and what their servers know of them."""
        now, unseen = trio.current_time(), self._unseen()
        for client in self.clients:
            if client.name in unseen:
                seen = zip(client.times[-8:], client.stream[-8:], strict=True)
                self.result.laggards.append(f"{client.name} was last seen with")
                self.result.laggards += [f"  {when - now:+.3f} s {item}" for when, item in seen]
        for serving in self.field.servings:
            state = (await serving.page("state")).decode()
            self.result.laggards += [f"{serving}: {line}" for line in state.splitlines()]

    def _last(self, group: str) -> dict[str, Event]:
        """Return the last event of each sender that was taken."""
        last: dict[str, Event] = {}
        for event, sent in self.ledgers[group].items():
            if sent.outcome == "taken" and (event.sender not in last or last[event.sender].number < event.number):
                last[event.sender] = event
        return last

    def _all_seen(self) -> bool:
        return not self._unseen()

    def _unseen(self) -> str:
        last = {group: self._last(group) for group in self.groups}
        return ", ".join(
            f"{client.name} is at {client.newest.get(event.sender)} of {event.sender}'s {event.number}"
            for client in self.clients
            for event in last[client.group].values()
            if client.newest.get(event.sender, 0) < event.number and not self._came_after(client, event)
        )

    def _came_after(self, client: Client, event: Event) -> bool:
        """Say whether a client began anew behind an event, and knows it: then it need not see that."""
        position, began = self.ledgers[client.group][event].position, client.began_at
        if position is not None and began is not None and position.epoch == began.epoch:
            return position.offset <= began.offset
        return self.noted[event, client.group] <= client.began + REPORT

    async def _look_at_servers(self, faults: Callable[[int, dict[str, int]], list[str]], when: str) -> None:
        for serving in self.field.servings:
            found: list[str] = ["it does not answer"]
            with trio.move_on_after(CONVERGE):
                while found:
                    try:
                        found = faults(serving.number, await serving.numbers())
                    except OSError:
                        found = ["it does not answer"]
                    await trio.sleep(0.05)
            self.result.faults += [f"server {serving.number}, {when}: {fault}" for fault in found]

    def _with_members(self, number: int, numbers: dict[str, int]) -> list[str]:
        rules = {"waiting": 0, "line": 0, "in flight": 0, "unwritten": 0, "subscriptions": numbers["feeds"] + 1,
                 "feeds": numbers["groups"]}  # fmt: skip
        return [f"{name} is {numbers[name]}, not {wanted}" for name, wanted in rules.items() if numbers[name] != wanted]

    def _without(self, start: dict[int, dict[str, int]], number: int, numbers: dict[str, int]) -> list[str]:
        names = set(numbers) - {"reconnects"}
        before = {**start[number], "in flight": 0, "unwritten": 0}
        before["tasks"] += self.result.people is not None  # whoever has seen a presence looks after it from then on
        return [f"{name} is {numbers[name]}, was {before[name]}" for name in names if numbers[name] != before[name]]

    # ---- the verdict

    def _judge(self) -> None:
        for kind in self.kinds:
            for group in GROUPS[kind]:
                streams = {client.name: client.stream for client in self.clients if client.group == group}
                findings = (
                    judge_history(
                        streams, self.ledgers[group], HISTORY.limit, two_masters=self.plan.topology == "sentinel"
                    )
                    if kind == "history"
                    else judge_plain(streams, self.ledgers[group], late=300 if self.plan.topology == "cluster" else 0)
                )
                self.result.findings[group] = findings
        self.result.context = [
            line for findings in self.result.findings.values() for line in self._context(findings.problems[:3])
        ]
        if not self.result.good:
            self.result.context += self._logs()

    def _context(self, problems: Iterable[str]) -> list[str]:
        """What happened around a problem: what the client saw, and which faults there were."""
        lines: list[str] = []
        for problem in problems:
            name, _, rest = problem.partition(": ")[2].partition(", item ")
            index = rest.partition(":")[0]
            client = next((client for client in self.clients if client.name == name), None)
            if client is None or not index.isdigit():
                continue
            at = client.times[int(index)]
            seen = [
                (client.times[number], str(client.stream[number]))
                for number in range(max(0, int(index) - 5), min(len(client.stream), int(index) + 3))
            ]
            near = self.timeline.between(at - 3, at + 0.5)
            lines.append(f"around: {problem}")
            lines += [f"    {when - at:+.3f} s  {what}" for when, what in sorted(seen + near)]
        return lines

    def _logs(self) -> list[str]:
        """Return the last that each process has said."""
        said = {log.name: log.read_text(errors="replace") for log in sorted(self.field.folder.glob("*.log"))}
        said |= {f"redis-{server.port}.log": server.log for server in self.field.topology.everyone}
        return [f"{name}: {line}" for name, text in said.items() for line in text.splitlines()[-40:]]


async def publish_from(
    run: Run, backend: str, environment: dict[str, str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a process of senders until it ends, and note what they were told."""
    command = [sys.executable, "-m", "tests.chaos.publisher", backend, str(run.plan.seed), *run.specs(backend)]
    with (run.field.folder / f"publisher-{backend}.log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell_when_over, run, process)
            await _read(run, process, task_status)
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    if process.returncode:
        run.result.faults.append(f"the publisher {backend} ended with {process.returncode}")


async def _tell_when_over(run: Run, process: trio.Process) -> None:
    assert process.stdin is not None
    await run.over.wait()
    with suppress(trio.BrokenResourceError):
        await process.stdin.send_all(b"over\n")


async def _read(run: Run, process: trio.Process, task_status: trio.TaskStatus[None]) -> None:
    assert process.stdout is not None
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line == b"ready":
                task_status.started()
            else:
                group, sender, number, outcome, position, keyed = json.loads(line)
                run.note(group, Event(sender, number), Sent(outcome, read_position(position), keyed))
    await process.wait()


async def chaos(plan: Plan) -> Result:
    """Run it; what it comes to is in the result, good or bad."""
    prefix = f"chaos{secrets.token_hex(3)}"
    with open_field(plan.topology, plan.version, plan.servers, len(PUBLISHERS), prefix) as ground:
        return await Run(plan, ground).go()
