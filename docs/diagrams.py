"""Draws the diagrams of these pages from the library's own tables: ``python docs/diagrams.py``.

Where things stand is decided here; what there is, and what leads where, is asked of the code. The lifetime comes from
``CAUSES`` and ``Step``, the conversation from ``WEBSOCKET`` and ``advance``, and the recovery from trying each case.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

from trichannels.instance import CAUSES, Cause, Step
from trichannels.layers.history import Position
from trichannels.layers.recovery import PENDING, Missed, Tracker, Verdict, is_whole, merge
from trichannels.protocol import WEBSOCKET, advance
from trichannels.server.transport import RESTART

FOLDER = Path(__file__).parent / "_static"
WIDTH = 720

# What each colour is for, on a light page and on a dark one. Each drawing has a ground of its own: a reader may have
# chosen another one for the page than for the system, which alone an image is told of.
COLOURS = {
    "ground": ("#ffffff", "#131416"),
    "card": ("#f6f8fa", "#1d2025"),
    "edge": ("#c3cad3", "#454b55"),
    "text": ("#1b1f24", "#e4e7eb"),
    "quiet": ("#57606a", "#9aa4b1"),
    "line": ("#6b7684", "#8793a2"),
    "bad": ("#b3372f", "#f08279"),
    "mark": ("#2f5fb3", "#84adf5"),
}
RULES = {
    "ground": "fill: {ground}",
    "card": "fill: {card}; stroke: {edge}",
    "rule": "stroke: {edge}",
    "line": "fill: none; stroke: {line}; stroke-width: 1.5",
    "tip": "fill: {line}",
    "text": "fill: {text}",
    "quiet": "fill: {quiet}",
    "bad": "fill: {bad}",
    "mark": "fill: {mark}",
    "chip": "fill: {ground}; stroke: {mark}",
    "disc": "fill: {mark}",
    "number": "fill: {ground}",
}
STYLE = """text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.title { font-size: 13.5px; font-weight: 600 }
.code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.92em }
.dashed { stroke-dasharray: 4 4 }"""


# ---- the pen


def painted(shade: int) -> str:
    """Return the rules of style for light (0) or for dark (1)."""
    colours = {name: both[shade] for name, both in COLOURS.items()}
    return "\n".join(f".{name} {{ {rule.format(**colours)} }}" for name, rule in RULES.items())


class Sheet:
    """A drawing; what is put on it later lies above."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "text", anchor: str = "start") -> None:
        """Write a line; what stands between backticks is code."""
        marked = re.sub("`([^`]+)`", r'<tspan class="code">\1</tspan>', escape(words))
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{marked}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str = "card", radius: float = 8) -> None:
        """Draw a rectangle with round corners."""
        size = f'width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" {size} class="{kind}"/>')

    def disc(self, x: float, y: float, number: int | None) -> None:
        """Draw the number of a step, or the end."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" class="{"chip" if number is None else "disc"}"/>')
        if number is None:
            self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="6.5" class="disc"/>')
        else:
            self.text(x, y + 4.5, str(number), "number title", "middle")

    def upwards(self, x: float, y: float, words: str, kind: str = "quiet") -> None:
        """Write a line that is read from below."""
        turned = f'transform="translate({x:g} {y:g}) rotate(-90)"'
        self.parts.append(f'<text {turned} class="{kind}" text-anchor="middle">{escape(words)}</text>')

    def rule(self, x: float, y: float, right: float) -> None:
        """Draw a thin line that parts two rows."""
        self.parts.append(f'<path d="M{x:g} {y:g}H{right:g}" class="rule"/>')

    def arrow(self, path: str, kind: str = "line") -> None:
        """Draw a line with a tip at its end."""
        self.parts.append(f'<path d="{path}" class="{kind}" marker-end="url(#tip)"/>')

    def finished(self, height: float, words: str) -> str:
        """Return the file; ``words`` tell those who cannot see it what is on it."""
        body = "\n".join(self.parts)
        return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" \
height="{height:g}" role="img">
<title>{escape(self.title)}</title>
<desc>{escape(words.replace("`", ""))}</desc>
<style>
{STYLE}
{painted(0)}
@media (prefers-color-scheme: dark) {{
{painted(1)}
}}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">\
<path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>
<rect width="{WIDTH}" height="{height:g}" rx="8" class="ground"/>
{body}
</svg>
"""


# ---- the lifetime

GRACED = "`disconnect_grace`"
OWNERS = {"the client": "the client's", "you": "yours"}


@dataclass(frozen=True, slots=True)
class Row:
    """One cause of an end, as its table has it. ``state``: what the instance says of itself afterwards."""

    state: Cause
    when: str
    code: str
    grace: str


def causes() -> Iterator[Row]:
    """Yield the causes. A server that drains is none to the instance, which learns of it as of a client that leaves."""
    for cause, meaning in CAUSES.items():
        if cause == "cancelled":
            yield Row("disconnected", "the server drains", str(RESTART), f"{GRACED}, or what is left of the drain")
        code = OWNERS[meaning.said_by] if meaning.said_by else str(meaning.code)
        yield Row(cause, meaning.when, code, GRACED if meaning.graced else "none")


def table_of_causes() -> str:
    """Return the table of ``docs/lifetimes.md``."""
    lines = ["| cause | close code | grace for running handlers |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.when} | {row.code} | {row.grace} |" for row in causes())])


def lifetime() -> str:
    """Draw how an instance lives and ends."""
    sheet = Sheet("The life of an instance")
    accepted = next(event for event, state in WEBSOCKET["connecting"].items() if state == "open")
    for x, state in ((20, "connecting"), (480, "open")):
        sheet.box(x, 16, 220, 40)
        sheet.text(x + 110, 41, state, "title text", "middle")
        sheet.arrow(f"M{x + 110} 56V92")
    sheet.arrow("M240 36H478")
    sheet.text(360, 28, f"`{accepted}`", "text", "middle")
    sheet.text(360, 78, "the first cause counts", "quiet", "middle")
    bottom = draw_causes(sheet, 94)
    sheet.arrow(f"M72 {bottom:g}V{bottom + 31:g}")
    words = [f"Connecting, then open after {accepted}."]
    words += [f"{row.state}: {row.when}, code {row.code}, grace {row.grace}." for row in causes()]
    words += [f"{number}. {step.title}: {step.what}." for number, step in enumerate(Step, 1)]
    return sheet.finished(draw_steps(sheet, bottom + 44), " ".join(words))


def draw_causes(sheet: Sheet, top: float) -> float:
    """Draw the causes, one a row; return where they end."""
    rows, height = list(causes()), 25
    sheet.box(20, top, 680, 30 + height * len(rows))
    columns = (34, 140, 462, 548)
    for x, head in zip(columns, ("state", "cause", "close code", "grace"), strict=True):
        sheet.text(x, top + 20, head, "quiet")
    for number, row in enumerate(rows):
        y = top + 30 + height * number
        sheet.rule(20, y, 700)
        grace = row.grace.replace(f"{GRACED}, or what is left of the drain", "the drain's, if shorter")
        for x, words in zip(columns, (f"`{row.state}`", row.when, row.code, grace), strict=True):
            sheet.text(x, y + 17, words, "mark" if x == columns[0] else "text")
    return top + 30 + height * len(rows)


def draw_steps(sheet: Sheet, top: float) -> float:
    """Draw the steps of an end, one below the other, and the way past the grace; return where the drawing ends."""
    rail, height = 72, 48
    at = {step: top + height * number for number, step in enumerate(Step)}
    for number, (step, y) in enumerate(at.items(), 1):
        sheet.disc(rail, y, number if step is not Step.OVER else None)
        if step is not Step.OVER:
            sheet.arrow(f"M{rail} {y + 11:g}V{y + height - 13:g}")
        sheet.text(rail + 26, y - 2, step.title, "title text")
        sheet.text(rail + 26, y + 15, step.what, "quiet")
    sheet.arrow(f"M{rail - 11} {at[Step.QUIET]:g}H40V{at[Step.NURSERY]:g}H{rail - 13}", "dashed line")
    abrupt = ", ".join(cause for cause, meaning in CAUSES.items() if not meaning.graced)
    sheet.upwards(33, at[Step.GRACE], abrupt)
    return at[Step.OVER] + 34


# ---- the conversation

PLACES = {"connecting": (74, 150), "open": (360, 62), "denying": (360, 238), "closed": (646, 150)}
WAYS = {
    ("connecting", "open"): ("M74 128V70Q74 62 82 62H304", 190, 54),
    ("connecting", "denying"): ("M74 172V230Q74 238 82 238H304", 190, 256),
    ("connecting", "closed"): ("M128 150H590", 360, 142),
    ("open", "closed"): ("M414 62H638Q646 62 646 70V126", 530, 54),
    ("denying", "closed"): ("M414 238H638Q646 238 646 230V174", 530, 256),
    ("open", "open"): ("M335 40V26Q335 18 343 18H377Q385 18 385 26V38", 397, 24),
    ("denying", "denying"): ("M335 260V274Q335 282 343 282H377Q385 282 385 274V262", 397, 286),
}


def moves() -> Iterator[tuple[str, str, str]]:
    """Yield from which state what leads to which; a body of which more is to come is tried as well."""
    for state, events in WEBSOCKET.items():
        for event in events:
            plain = advance(WEBSOCKET, state, {"type": event})
            more = advance(WEBSOCKET, state, {"type": event, "more_body": True})
            yield state, f"`{event}`", plain
            if more != plain:
                yield state, f"`{event}`, more to come", more


def conversation() -> str:
    """Draw what an application may send after what."""
    sheet = Sheet("What may be sent after what")
    said: dict[tuple[str, str], list[str]] = {}
    for before, event, after in moves():
        said.setdefault((before, after), []).append(event)
    for way, events in said.items():
        path, x, y = WAYS[way]
        sheet.arrow(path)
        for number, event in enumerate(events):
            sheet.text(x, y + 15 * number, event, "text", "start" if way[0] == way[1] else "middle")
    for state in WEBSOCKET:
        x, y = PLACES[state]
        sheet.box(x - 54, y - 22, 108, 44)
        sheet.text(x, y + 5, state, "title text", "middle")
    return sheet.finished(300, " ".join(f"{before}: {event} leads to {after}." for before, event, after in moves()))


# ---- the recovery


@dataclass(frozen=True)
class Told:
    """An event at a position, as the wire brings it."""

    position: Position


def one(offset: int, epoch: str = "e") -> Told:
    """Return the event with this number."""
    return Told(Position(offset, epoch))


def told(*offsets: int) -> list[Told]:
    """Return the events with these numbers."""
    return [one(offset) for offset in offsets]


TOP = Position(3, "e")  # where every trial stands


def tracker_in(state: str) -> Tracker[Told]:
    """Return a tracker that stands at ``TOP``, in a state to which its own methods have brought it."""
    tracker: Tracker[Told] = Tracker()
    tracker.heal(Missed(TOP))
    tracker.settle()
    for _ in range(("live", "reading", "again").index(state)):
        tracker.doubt()
    return tracker


def state_of(tracker: Tracker[Told]) -> str:
    """Tell a tracker's state by what it does: where the history must be read again, no answer settles anything."""
    if tracker.live:
        return "live"
    trials = [deepcopy(tracker) for _ in "ef"]
    for trial, epoch in zip(trials, "ef", strict=True):
        trial.heal(Missed(Position(PENDING + 99, epoch)))
    return "again" if all(trial.settle() is None for trial in trials) else "reading"


Trial = Callable[[Tracker[Told]], str]


def arriving(event: Told, times: int = 1) -> Trial:
    """Return a trial: an event comes, so many times."""
    return lambda tracker: {tracker.arrive(event).name for _ in range(times)}.pop()


def doubted(tracker: Tracker[Told]) -> str:
    """Try it: something may be missing."""
    tracker.doubt()
    return ""


def answered(missed: Missed[Told], *meanwhile: Told) -> Trial:
    """Return a trial: events come, then the history answers, and all that follows from it is delivered."""

    def trial(tracker: Tracker[Told]) -> str:
        for event in meanwhile:
            tracker.arrive(event)
        recovered = tracker.heal(missed)[1]
        while tracker.settle():
            pass
        return "" if recovered else "the gap is told"

    return trial


ARRIVALS: dict[str, Trial] = {
    "the next number": arriving(one(4)),
    "a number that was here": arriving(one(3)),
    "a number is skipped": arriving(one(5)),
    "another epoch": arriving(one(1, "f")),
}
DOUBTS: dict[str, Trial] = {"a doubt: the connection was lost, say": doubted}
CROWDS: dict[str, Trial] = {f"more than {PENDING:,} wait": arriving(one(5), times=PENDING + 1)}
ANSWERS: dict[str, Trial] = {
    "the history is whole": answered(Missed(Position(5, "e"), told(4, 5)), one(6)),
    "it is not": answered(Missed(Position(5, "e"), told(5)), one(6)),
    "what waited does not follow it": answered(Missed(Position(5, "e"), told(4, 5)), one(7)),
}
STATES = {
    "live": {**ARRIVALS, **DOUBTS},
    "reading": {**ARRIVALS, **DOUBTS, **CROWDS, **ANSWERS},
    "again": {**ARRIVALS, **DOUBTS, **ANSWERS},
}


@dataclass(frozen=True, slots=True)
class Change:
    """What came, in which state, what was said of it, and the state after it."""

    before: str
    what: str
    outcome: str
    after: str


def tried(state: str) -> list[Change]:
    """Try everything in a state."""
    found = []
    for what, trial in STATES[state].items():
        tracker = tracker_in(state)
        outcome = trial(tracker)
        found.append(Change(state, what, outcome, state_of(tracker)))
    return found


def changes() -> Iterator[Change]:
    """Try everything in every state. Where all events are taken alike, or all answers, it is one change."""
    for state in STATES:
        found = tried(state)
        arrivals = [change for change in found if change.what in ARRIVALS]
        if len({(change.outcome, change.after) for change in arrivals}) == 1:
            found = [replace(arrivals[0], what="any event"), *(each for each in found if each not in arrivals)]
        answers = [change for change in found if change.what in ANSWERS]
        if len({change.after for change in answers}) == 1:
            over = replace(answers[0], what="this reading is over", outcome="")
            found = [*(each for each in found if each not in answers), over]
        yield from found


@dataclass(frozen=True, slots=True)
class Return:
    """Somebody comes back who has seen all up to ``TOP``: what history answers, and what comes meanwhile."""

    history: list[Told]
    top: Position
    live: list[Told]
    whole: bool = True

    def outcome(self) -> list[Told] | str:
        """Ask the code what is delivered; a text where nothing is."""
        missed = Missed(self.top, self.history, self.whole)
        if not is_whole(TOP, missed):
            return "nothing: it is told"
        merged = merge(TOP, missed, self.live)
        return "read once more" if merged is None else merged


RETURNS = {
    "all of it, and more comes": Return(told(4, 5), Position(5, "e"), told(6)),
    "some of it comes both ways": Return(told(4, 5), Position(5, "e"), told(5, 6)),
    "live events leave a gap": Return(told(4, 5), Position(5, "e"), told(7)),
    "the oldest has expired": Return(told(5), Position(5, "e"), told(6)),
    "it is another history": Return([], Position(2, "f"), [one(3, "f")]),
    "more than may be recovered": Return([], Position(9999, "e"), [], whole=False),
}
HEADS = {
    "live": "Live: events are delivered as they come",
    "reading": "Reading the history",
    "again": "Reading it, and once more after that",
}


def recovery() -> str:
    """Draw how a group's gaps are found and closed, and what becomes of those who come back."""
    sheet, found, y = Sheet("How nothing is missed unseen"), list(changes()), 16.0
    bottoms = {}
    for state in STATES:
        bottoms[state] = draw_state(sheet, y, state, found)
        if state == state_of(Tracker()):
            sheet.arrow(f"M8 {y + 20:g}H38")
        y = bottoms[state] + 84
    for upper, lower in pairwise(STATES):
        draw_between(sheet, bottoms[upper], upper, lower, found)
    y = draw_returns(sheet, bottoms["again"] + 34)
    words = [f"{c.before}, {c.what}: {c.outcome or 'then'}, {c.after}." for c in found]
    words += [f"Who comes back when {what}: {numbers(each.outcome())}." for what, each in RETURNS.items()]
    return sheet.finished(y, " ".join(words))


def numbers(events: list[Told] | str) -> str:
    """Write the numbers of what is delivered."""
    return events if isinstance(events, str) else " ".join(str(event.position.offset) for event in events)


def rows_of(state: str, found: Sequence[Change]) -> list[tuple[list[str], str, list[str]]]:
    """Return what comes in a state and does not need an arrow, the verdict on it, and what that means."""
    said: dict[Verdict, list[str]] = {}
    for change in found:
        if change.before == state and change.outcome in Verdict.__members__ and change.what not in CROWDS:
            said.setdefault(Verdict[change.outcome], []).append(change.what)
    rows = [(whats, f"`{verdict.name}`", wrap(verdict.value, 44)) for verdict, whats in said.items()]
    stays = [change.what for change in found if change.before == change.after == state and change.what in ANSWERS]
    return [*rows, (stays, "", ["it is read once more"])] if stays else rows


def draw_state(sheet: Sheet, top: float, state: str, found: Sequence[Change]) -> float:
    """Draw a state with its rows; return where it ends."""
    rows = rows_of(state, found)
    heights = [8 + 16 * max(len(whats), len(values)) for whats, _, values in rows]
    sheet.box(40, top, 640, 36 + sum(heights))
    sheet.text(56, top + 24, HEADS[state], "title text")
    y = top + 35.0
    for (whats, verdict, values), height in zip(rows, heights, strict=True):
        sheet.rule(40, y, 680)
        for x, column, kind in ((56, whats, "text"), (260, [verdict], "mark"), (336, values, "text")):
            for number, words in enumerate(column):
                sheet.text(x, y + 17 + 16 * number, words, kind)
        y += height
    return y


def draw_between(sheet: Sheet, top: float, upper: str, lower: str, found: Sequence[Change]) -> None:
    """Draw what leads from one state down to the next, and back."""
    for before, after, x, side, anchor in ((upper, lower, 310, -10, "end"), (lower, upper, 410, 10, "start")):
        sheet.arrow(f"M{x} {top:g}V{top + 82:g}" if before is upper else f"M{x} {top + 84:g}V{top + 2:g}")
        here = [change for change in found if (change.before, change.after) == (before, after)]
        verdicts = {change.outcome for change in here if change.what in ARRIVALS}
        labels = [f"`{name}`" for name in sorted(verdicts)]
        labels += [f"{c.what}{c.outcome and ': '}{c.outcome}" for c in here if c.what not in {**ARRIVALS, **CROWDS}]
        labels += [c.what for c in here if c.what in CROWDS]
        for number, label in enumerate(labels):
            sheet.text(x + side, top + 47 - 8.5 * (len(labels) - 1) + 17 * number, label, "text", anchor)


def draw_returns(sheet: Sheet, top: float) -> float:
    """Draw, for somebody who comes back, what there is and what is delivered; return where the drawing ends."""
    sheet.text(40, top, f"Who comes back, and has seen all up to {TOP.offset}", "title text")
    for x, head in ((256, "the history has"), (400, "meanwhile came"), (544, "delivered")):
        sheet.text(x, top + 24, head, "quiet")
    y = top + 32.0
    for what, each in RETURNS.items():
        sheet.rule(40, y, 680)
        sheet.text(40, y + 21, what)
        draw_chips(sheet, 256, y, each.history)
        draw_chips(sheet, 400, y, each.live)
        outcome = each.outcome()
        if isinstance(outcome, str):
            sheet.text(544, y + 21, outcome, "bad" if "told" in outcome else "mark")
        else:
            draw_chips(sheet, 544, y, outcome)
        y += 32
    return y + 12


def draw_chips(sheet: Sheet, x: float, y: float, events: Sequence[Told]) -> None:
    """Draw events as their numbers; those of another epoch with its name."""
    for number, event in enumerate(events):
        place = event.position
        sheet.box(x + 32 * number, y + 5, 26, 22, "chip", 5)
        label = str(place.offset) if place.epoch == TOP.epoch else f"{place.offset}′"
        sheet.text(x + 32 * number + 13, y + 20.5, label, "text", "middle")


DRAWINGS = {"lifetime.svg": lifetime, "conversation.svg": conversation, "recovery.svg": recovery}


def main() -> None:
    """Write them all."""
    for name, draw in DRAWINGS.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
