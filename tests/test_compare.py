"""The benchmarks run, and count right. What they measure here means nothing and is not looked at."""

import gc
from pathlib import Path

import pytest
import trio

from benchmarks import inside
from benchmarks.compare import compare
from benchmarks.comparing import page
from benchmarks.comparing.frames import PAYLOAD, PING, TEXT, head, masked, split, unmasked
from benchmarks.comparing.goals import table_of_goals
from benchmarks.comparing.load import Stalled
from benchmarks.comparing.modes import MODES, Plan
from benchmarks.comparing.peers import PEERS
from benchmarks.comparing.process import free_port, served
from benchmarks.comparing.report import Run, as_json, cell, from_json, table

SMALL = Plan(seconds=5, messages=30, sizes=(10,), warm_up=0, settle=0, echoes=3)
pytestmark = pytest.mark.once


@pytest.mark.server
def test_every_mode_runs(descriptors: None) -> None:
    port = free_port()
    with served(PEERS["trichannels"].command(port), port) as server:
        for mode, measure in MODES.items():
            assert measure(server, SMALL), mode


@pytest.mark.server
def test_peers_are_compared(descriptors: None) -> None:
    run = compare("fanout", ["trichannels", "websockets"], 1, SMALL)
    assert not run.failures
    assert [list(values) for values in run.figures.values()] == [["trichannels", "websockets"]] * len(SMALL.in_flight)


def test_what_is_inside_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "MESSAGES", 3)
    found = trio.run(inside.measure)
    gc.enable()
    assert len(found) == 4
    assert all(cost > 0 for cost in found.values())


@pytest.mark.server
def test_a_server_that_ends_is_an_error_that_tells_why(descriptors: None) -> None:
    with (
        pytest.raises(Stalled, match="exit code 2") as caught,
        served(["python3", "no such file"], free_port()),
    ):
        raise AssertionError("there is a server")
    assert "no such file" in caught.value.__notes__[0]


def test_a_peer_that_is_not_here_is_left_out() -> None:
    told: list[str] = []
    assert compare("http", ["websockets"], 1, SMALL, told.append).peers == []
    assert told == ["websockets is left out: there is no http in it"]


def test_frames_are_split() -> None:
    data = unmasked(TEXT, PAYLOAD) + unmasked(PING, b"?") + unmasked(TEXT, PAYLOAD)[:-1]
    assert split(data) == ([(TEXT, PAYLOAD), (PING, b"?")], unmasked(TEXT, PAYLOAD)[:-1])
    assert len(PAYLOAD) == 128
    assert masked(TEXT, b"ab") == head(TEXT, 2, 128) + b"\0\0\0\0ab"


# ---- the report


def run_of(mode: str = "echo", name: str = "echo, µs", **figures: list[float]) -> Run:
    peers = [peer.replace("_", "-") for peer in figures]
    return Run(mode=mode, peers=peers, figures={name: dict(zip(peers, figures.values(), strict=True))})


def test_a_cell_has_median_spread_and_the_median_of_the_ratios() -> None:
    assert cell([10.0, 30.0, 20.0], None) == "20.0 (10.0–30.0)"
    assert cell([10.0, 30.0, 20.0], [1.0, 30.0, 5.0]).endswith(" ×4.00")


def test_a_peer_without_a_figure_has_an_empty_cell() -> None:
    run = run_of(trichannels=[2.0], node=[1.0])
    run.figures["other"] = {"node": [3.0]}
    assert table(run).splitlines()[2:] == [
        "| trichannels serve | 2.0 (2.0–2.0) | – |",
        "| Node ws | 1.0 (1.0–1.0) ×0.50 | 3.0 (3.0–3.0) |",
    ]


def test_goals_are_judged_by_the_median_of_the_ratios() -> None:
    runs = [run_of(trichannels=[10.0, 10.0, 10.0], channels_uvicorn=[10.0, 51.0, 60.0], asgi_uvicorn=[9.0, 9.0, 11.0])]
    assert table_of_goals(runs).splitlines()[2:] == [
        "| echo, Channels on uvicorn to us | at least 5 | 5.10 (1.00–6.00) | reached |",
        "| echo, bare ASGI on uvicorn to us | at least 1 | 0.90 (0.90–1.10) | **missed** |",
    ]


def test_goals_of_memory_and_of_growth() -> None:
    runs = [
        run_of("fanout", "100 sockets, 1 in flight, µs", trichannels=[10.0]),
        run_of("fanout", "5,000 sockets, 1 in flight, µs", trichannels=[16.0]),
        run_of("memory", "2,000 sockets, KiB each", trichannels=[18.0]),
    ]
    memory, growth = table_of_goals(runs).splitlines()[2:]
    assert memory.endswith("| at most 18 | 18.0 | reached |")
    assert growth.endswith("| at most 1.5 | 1.60 | **missed** |")
    assert page.points(runs) == {"trichannels": [(100, 10.0), (5000, 16.0)]}


def test_the_figures_are_put_between_the_marks(tmp_path: Path) -> None:
    text = as_json([run_of(trichannels=[7.0])])
    assert from_json(text)[1] == [run_of(trichannels=[7.0])]
    it = tmp_path / "performance.md"
    it.write_text(f"before\n{page.BEGIN}old{page.END}after\n")
    page.write(it, text)
    page.write(it, text)
    new = it.read_text()
    assert new.startswith("before\n")
    assert new.endswith(f"{page.END}after\n")
    assert "old" not in new
    assert new.count("| trichannels serve | 7.0 (7.0–7.0) |") == 1
