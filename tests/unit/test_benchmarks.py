"""The benchmarks' own logic; no times are compared here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine import require_namespaces
from support import wait_for

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # behind the installation, so that it's the installed ginit that is tested

from benchmarks import peers, procfs  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.measure import measure, turns  # noqa: E402
from benchmarks.namespace import Namespace  # noqa: E402
from benchmarks.peers import PEERS, Service, environment  # noqa: E402
from benchmarks.readers import COUNT_ALL, Reader, count_marked, last_arrival  # noqa: E402
from benchmarks.report import (  # noqa: E402
    PeerNote,
    Report,
    WorkNote,
    format_ratio,
    format_spread,
    format_value,
    table,
    to_json,
    to_markdown,
)
from benchmarks.results import Case, HangError, Measure, PeerError, Sample, Samples, Spread, percentile, spread  # noqa: E402
from benchmarks.works import WORKS  # noqa: E402
from benchmarks.works.base import QUICK, Place, Work  # noqa: E402
from benchmarks.works.lines import make_line, write_lines  # noqa: E402
from benchmarks.works.marked import find_numbers  # noqa: E402

#: The benchmarks, where no stall of a machine that has other things to do counts as the end.
PATIENT = """
import dataclasses, sys
from benchmarks import __main__ as program
program.QUICK = dataclasses.replace(program.QUICK, quiet_seconds=15.0)
sys.exit(program.main())
"""

BY_NAME = {peer.name: peer for peer in PEERS}


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (99.1, 100), (100, 100)])
def test_a_percentile_is_the_value_of_the_nearest_rank(percent, expected):
    assert percentile(range(100, 0, -1), percent) == expected


def test_every_percentile_of_one_value_is_that_value():
    assert {percentile([7.0], percent) for percent in (0, 50, 99, 100)} == {7.0}


def test_a_spread_has_the_median_and_both_ends():
    assert spread([3.0, 1.0, 10.0, 2.0]) == Spread(2.5, 1.0, 10.0)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.234567, "s", "1.23 s"),
        (123.4, "s", "123 s"),
        (0.0123, "s", "12.3 ms"),
        (0.00045678, "s", "457 µs"),
        (0, "s", "0 µs"),
        (3 * 2**20, "B", "3 MiB"),
        (1234567, "lines", "1,234,567"),
        (360, "/min", "360/min"),
        (0.00001234, "s/min", "0.0000123 s/min"),
        (4, "", "4"),
    ],
)
def test_a_value_is_shown_in_a_unit_that_suits_it(value, unit, expected):
    assert format_value(value, unit) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"), [(3.21, "3.2x"), (1.0, "1x"), (0.0441, "0.044x"), (19.4, "19x"), (1234.5, "1,234x"), (0, "0x")]
)
def test_a_ratio_has_two_digits(ratio, expected):
    assert format_ratio(ratio) == expected


def test_a_spread_of_one_value_has_no_ends():
    assert format_spread(Spread(2.0, 2.0, 2.0), "s") == "2 s"
    assert format_spread(Spread(2.0, 0.5, 2.5), "s") == "2 s (500 ms .. 2.5 s)"


def test_a_table_keeps_its_shape_whatever_a_cell_holds():
    assert table(["peer", "x"], [["a|b", "1\n2"]]) == "| peer | x   |\n| ---- | --- |\n| a\\|b | 1 2 |"


def test_the_order_of_peers_is_turned_round_in_each_repetition():
    assert list(turns("ab", 3)) == [(1, "a"), (1, "b"), (2, "b"), (2, "a"), (3, "a"), (3, "b")]


# The report.

TIME = Measure("seconds", "time", "s", reference="cat")
LOST = Measure("lost", "lines lost", "lines")
PLAIN = Case("plain", "plain", (TIME, LOST))


def sample(peer: str, seconds: float, lost: int = 0, repetition: int = 1) -> Sample:
    return Sample("a", "plain", peer, repetition, {"seconds": seconds, "lost": lost})


def make_report(*samples: Sample) -> Report:
    notes = [PeerNote(name, "1", "", name) for name in dict.fromkeys(each.peer for each in samples)]
    notes.append(PeerNote("dinit", None, "", "elsewhere"))
    return Report(describe_machine(), notes, [WorkNote("a", "lines", [PLAIN])], {"lines": 1000}, 1, Samples(samples))


def rows(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")]


def test_ratios_are_those_of_the_medians():
    report = make_report(
        *(sample("ginit", seconds, repetition=number) for number, seconds in enumerate((2.0, 9.0, 1.0))), sample("cat", 0.5)
    )
    text = to_markdown(report)
    assert ["(a) plain: time", "4x", "1x"] in rows(text)
    assert ["ginit", "2 s (1 s .. 9 s)", "4x", "0"] in rows(text)


def test_lost_lines_stand_beside_the_ratio():
    assert ["(a) plain: time", "4x, 617 lost", "1x"] in rows(to_markdown(make_report(sample("s6", 2, 617), sample("cat", 0.5))))


def test_without_the_reference_values_take_the_place_of_ratios():
    text = to_markdown(make_report(sample("ginit", 2)))
    assert ["(a) plain: time", "2 s"] in rows(text)
    assert ["ginit", "2 s", "", "0"] in rows(text)


def test_a_missing_peer_is_said_to_be_missing():
    text = to_markdown(make_report(sample("cat", 1)))
    assert ["dinit", "**missing** (elsewhere)", ""] in rows(text)


def test_a_failure_is_said_and_hides_no_other_peer():
    text = to_markdown(make_report(sample("cat", 1), Sample("a", "plain", "s6", 1, {}, "not done within 120 s")))
    assert ["(a) plain: time", "1x", "failed"] in rows(text)
    assert "- s6 failed: not done within 120 s" in text


def test_the_json_file_holds_every_sample_and_the_machine():
    content = json.loads(to_json(make_report(sample("ginit", 2, repetition=1), sample("ginit", 3, repetition=2))))
    assert [each["values"]["seconds"] for each in content["samples"]] == [2, 3]
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["memory"] > 2**20
    assert {peer["name"]: peer["version"] for peer in content["peers"]} == {"ginit": "1", "dinit": None}


# The peers.


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_gets_an_executable_for_each_service(peer, tmp_path):
    count = min(2, peer.most_services or 2)
    layout = peer.lay_out([Service(f"service-{number}", "cat FILE") for number in range(count)], tmp_path)
    runs = [path for path in tmp_path.rglob("run") if path.parent.name != "log"]
    assert len(runs) == count
    assert all(os.access(path, os.X_OK) and path.read_text().startswith("#!/bin/sh\n") for path in runs)
    assert str(tmp_path) in " ".join([*layout.command, *layout.environ.values()])


@pytest.mark.parametrize(
    ("name", "count", "end"),
    [
        ("ginit", 1, "exec cat FILE"),
        ("ginit", 2, "exit 115"),
        ("dinit", 2, "exit 115"),
        ("supervisord", 2, "exec cat FILE"),
        ("honcho", 1, "exec cat FILE"),
        ("honcho", 2, f"exec {peers.IDLE}"),
        ("s6", 1, f"exec {peers.IDLE}"),
        ("runit", 1, f"exec {peers.IDLE}"),
    ],
)
def test_a_service_ends_as_its_manager_takes_it(name, count, end, tmp_path):
    BY_NAME[name].lay_out([Service(f"service-{number}", "cat FILE") for number in range(count)], tmp_path)
    run = next(path for path in tmp_path.rglob("service-0/run"))
    assert run.read_text().splitlines()[-1] == end


def test_ginit_is_told_the_mode_by_its_environment(tmp_path):
    ginit, dinit = BY_NAME["ginit"], BY_NAME["dinit"]
    assert ginit.lay_out([Service("a", "b")], tmp_path, json=True).environ == {
        "GINIT_DIR": str(tmp_path),
        "GINIT_JSON_STDOUT": "1",
    }
    assert dinit.lay_out([Service("a", "b")], tmp_path).environ == {"DINIT_DIR": str(tmp_path), "DINIT_JSON_STDOUT": "0"}


def test_a_dinit_is_known_by_its_module():
    build = b"\0path\tgitlab.com/tozd/dinit/cmd/dinit\nmod\tgitlab.com/tozd/dinit\tv0.4.0\th1:abc=\n\0"
    assert peers.dinit_version(build + b"DINIT_REPARENTING_POLICY") == "v0.4.0"
    assert peers.dinit_version(b"DINIT_REPARENTING_POLICY") == "unknown"
    assert peers.dinit_version(b"the service manager of the same name") is None


# The works.


@pytest.mark.parametrize("size", [90, 10_000])
def test_a_line_has_its_size(size):
    line = make_line(size, 999)
    assert len(line) == size
    assert json.loads(line)["number"] == 999
    assert len(make_line(size, 999, is_json=False)) == size


def test_a_file_of_lines_has_as_many_as_are_wanted(tmp_path):
    write_lines(tmp_path / "lines", 2030, 90, text_every=10)
    lines = (tmp_path / "lines").read_bytes().splitlines()
    assert len(lines) == 2030
    assert sum(not line.startswith(b"{") for line in lines) == 203


def test_numbers_are_found_however_the_output_is_cut():
    output = b"x web: @quiet-line 12@\nflood\n@quiet-li@ x @quiet-line 345@\n"
    for cut in range(len(output)):
        found, rest = find_numbers(output[:cut], b"@quiet-line ")
        more, _ = find_numbers(rest + output[cut:], b"@quiet-line ")
        assert found + more == [12, 345]


def test_every_work_has_a_letter_of_its_own():
    assert [work.letter for work in WORKS] == list("abcdefghijk")


def test_only_those_that_know_json_are_given_it():
    with Place(0) as place:
        work = next(work for work in WORKS if work.letter == "a")(QUICK, place)
        takers = {case.key: [peer.name for peer in PEERS if work.refusal(peer, case) is None] for case in work.cases}
    assert takers == {
        "plain": ["ginit", "dinit", "supervisord", "s6", "runit", "honcho", "cat"],
        "json": ["ginit", "dinit", "cat"],
    }


def test_a_peer_that_has_failed_is_not_tried_again():
    class Failing(Work):
        letter = "x"
        title = "what a peer can't do"
        cases = (Case("case", "case", ()),)

        def run(self, peer, *_):
            if peer.name == "s6":
                raise PeerError("it can't")
            return {"value": 1.0}

    seen: list[Sample] = []
    with Place(0) as place:
        samples = measure([Failing(QUICK, place)], [BY_NAME["s6"], BY_NAME["ginit"]], 3, seen.append)
    assert samples == seen
    assert [(each.peer, each.repetition, each.failure) for each in samples] == [
        ("s6", 1, "it can't"),
        ("ginit", 1, None),
        ("ginit", 2, None),
        ("ginit", 3, None),
    ]


# Processes.


def test_readers_count_lines_and_bytes():
    with Reader(COUNT_ALL) as every, Reader(count_marked("mark")) as marked:
        for reader in (every, marked):
            os.write(reader.fd, b"a mark\nanother\n")
            reader.close_input()
        assert [int(reader.result()) for reader in (every, marked)] == [2, 1]


def test_an_arrival_is_over_when_its_end_has_come():
    with Reader(COUNT_ALL) as reader:
        os.write(reader.fd, b"x" * 1000)
        reader.close_input()
        last_arrival(reader.arrived, reader.ended, quiet=1000, timeout=20)
        assert reader.arrived() == 1000


def test_an_arrival_that_has_no_end_is_a_hang():
    with pytest.raises(HangError, match=r"not done within 0\.05 s"):
        last_arrival(lambda: 0, lambda: False, quiet=0.01, timeout=0.05)


def test_an_arrival_is_over_when_nothing_has_come_for_a_while():
    last_arrival(lambda: 1, lambda: False, quiet=0.01, timeout=20)


def test_descendants_hold_memory_and_use_time():
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & read line"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        wait_for(lambda: len(procfs.descendants(shell.pid)) == 2)
        pids = [process.pid for process in procfs.descendants(shell.pid)]
        assert pids[0] == shell.pid
        assert procfs.memory(pids) > 0
        assert procfs.use(pids).switches >= 0
    finally:
        os.killpg(shell.pid, 9)
        shell.communicate()
    assert procfs.descendants(shell.pid) == []
    # The shell's child was told to end too, but nobody here waits for it.
    wait_for(lambda: procfs.memory(pids) == 0)


def test_a_command_that_ends_between_two_looks_has_stopped(tmp_path, monkeypatch):
    require_namespaces()

    def processes():
        gate.write_text("open")
        namespace.wait(20)
        return []

    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Namespace(["cat", str(gate)], environment(), tmp_path, 1, 2) as namespace:
        assert namespace.status is None
        monkeypatch.setattr(procfs, "processes", processes)
        namespace.stop(20)
        assert namespace.status == 0


def test_the_whole_runs(tmp_path):
    require_namespaces()
    command = [sys.executable, "-c", PATIENT, "--quick", "--works", "a,f", "--peers", "ginit,cat", "--repetitions", "1"]
    done = subprocess.run(
        [*command, "--lines", "2000", "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "benchmarks.json").read_text())
    assert [(each["work"], each["case"], each["peer"], each["failure"]) for each in content["samples"]] == [
        (work, case, peer, None)
        for work, case in (("a", "plain"), ("a", "json"), ("f", "alone"), ("f", "flooded"))
        for peer in ("ginit", "cat")
    ]
    assert all(each["values"]["lost"] == 0 for each in content["samples"])
    assert (tmp_path / "benchmarks.md").read_text().strip() in done.stdout


def test_an_unknown_name_is_a_clear_error():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--peers", "systemd"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown: systemd; there are ginit, dinit" in done.stderr
