"""Measures speed: this project, diffusers, and what the machine can do, in turn in one run.

Run `make bench`, or `python -m tests.benchmarks.bench_speed --quick` for a first look. Each side of
a measurement has a process of its own, as its users have: what it compiles and how it keeps memory
is its own affair. All are built and warmed up (which compiles those that are compiled); then they
take turns: A B C, A B C. Each ratio is the median of the rounds' own ratios, so that a machine that
is slow for a while is slow for all. Writes a table, and `bench-speed.json`.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import torch

from tests.benchmarks.bench_speed_diffusers import AS_INSTALLED
from tests.benchmarks.bench_speed_machine import (
    DTYPES,
    ConvolutionLimit,
    describe_machine,
    fastest_dtype,
    median_and_spread,
    startup_times,
)
from tests.benchmarks.bench_speed_setups import (
    ROOT,
    Setup,
    Task,
    device_kind,
    setups,
    synchronize,
)
from tests.benchmarks.bench_speed_sides import OURS, Side, Turn, network_flops, sides
from tests.support.memory import peak_mb

Row = dict[str, Any]
_PEAK_STEPS = 2  # the second one has everything in memory that any later one has


def main() -> None:
    """Measure what was asked for, print it and write it."""
    # Must be set before diffusers is imported. On two cores more compiling processes stall.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    options = _options()
    if options.peak_of:
        print(_peak_mb_here(options, *options.peak_of))
        return
    results: Row = {"machine": describe_machine(), "options": _plain(options)}
    chosen = [
        (task, setup)
        for setup, task in product(setups(options.quick), get_args(Task))
        if _is_chosen(f"{task}:{setup.name}", options.only)
    ]
    # The peaks come first: a process begins with the peak of the one that started it.
    peaks = {
        (task, setup.name, side.name): _peak_mb(options, task, setup, side)
        for task, setup in chosen
        for side in (sides(task, options.compile) if options.memory else [])
    }
    results["measurements"] = []
    for task, setup in chosen:
        found = measure(task, setup, sides(task, options.compile), options.repeats)
        for row in found["sides"]:
            row["peak_mb"] = peaks.get((task, setup.name, row["side"]))
        results["measurements"].append(found)
        _write(results, options.output)  # so that a run that is cut short was not for nothing
        print_measurement(found)
    if _is_chosen("startup", options.only):
        results["startup_s"] = startup_times(options.repeats, options.stack)
    print_summary(results)
    _write(results, options.output)
    print(f"\nwritten to {options.output}")


def measure(task: Task, setup: Setup, taking_part: list[Side], repeats: int) -> Row:
    """Let all sides and the machine's limit take turns.

    Returns:
        What there is to know of each side: images/s of every round, their median and spread, the
        ratio of our rate to it, the fraction of the limit, and how long its first turn took.
    """
    _note(f"{task} {setup.name}: building and warming up {len(taking_part)} sides")
    with ExitStack() as running:
        turns = {side.name: _Turns(running, setup, side) for side in taking_part}
        seconds, limits = _take_turns(turns, repeats)
    first_turn_s = {name: turn.first_s for name, turn in turns.items()}
    flops = network_flops(task, setup)
    rows = [
        {
            "side": name,
            "first_turn_s": first_turn_s[name],
            **_rates(task, setup, taken, seconds[OURS], limits[fastest_dtype()], flops),
        }
        for name, taken in seconds.items()
    ]
    return {
        "task": task,
        "setup": setup.name,
        "batch_size": setup.batch_size,
        "num_steps": setup.num_steps(task),
        "flops_of_an_image_step": flops,
        "limit_flops_per_s": limits,
        "limit_dtype": fastest_dtype(),
        "sides": rows,
    }


class _Turns:
    """A side in a process of its own; it is built, and its first turn taken, when this returns.

    Args:
        running: Ends the process.
        setup: What a turn is.
        side: Who takes it.
    """

    def __init__(self, running: ExitStack, setup: Setup, side: Side) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs, setup, side), daemon=True)
        process.start()
        running.callback(process.join)
        running.callback(self._connection.close)  # which ends it
        theirs.close()
        self.first_s: float = self._connection.recv()

    def take(self) -> float:
        """Take a turn and return its seconds."""
        self._connection.send(None)
        seconds: float = self._connection.recv()
        return seconds


def _serve(connection: Connection, setup: Setup, side: Side) -> None:
    turn = side.build(setup)
    with suppress(EOFError):
        while True:
            connection.send(_seconds_of(turn))
            connection.recv()


def _take_turns(
    turns: Mapping[str, _Turns], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each side's turns, and the rates of the convolutions in between."""
    limit = ConvolutionLimit()
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    limits: dict[str, list[float]] = {name: [] for name in DTYPES}
    for _ in range(repeats):
        for name, turn in turns.items():
            seconds[name].append(turn.take())
        for name, rates in limits.items():
            rates.append(limit.flops_per_s(name))
    return seconds, limits


def _rates(
    task: Task,
    setup: Setup,
    seconds: list[float],
    our_seconds: list[float],
    limit: list[float],
    flops: int,
) -> Row:
    """Return what follows from the seconds of one side's turns, round by round."""
    images = setup.images_of(task)
    image_steps = setup.batch_size * setup.num_steps(task)
    images_per_s, spread = median_and_spread([images / s for s in seconds])
    return {
        "seconds": seconds,
        "images_per_s": images_per_s,
        "image_steps_per_s": images_per_s * image_steps / images,
        "spread": spread,
        "ours_is_faster_by": statistics.median(
            theirs / ours for theirs, ours in zip(seconds, our_seconds, strict=True)
        ),
        "fraction_of_limit": statistics.median(
            image_steps * flops / s / rate for s, rate in zip(seconds, limit, strict=True)
        ),
    }


def _seconds_of(turn: Turn) -> float:
    synchronize()
    began_at = time.perf_counter()
    turn()
    synchronize()
    return time.perf_counter() - began_at


def _peak_mb(options: argparse.Namespace, task: Task, setup: Setup, side: Side) -> float:
    """Measure a side's peak memory in a process of its own."""
    _note(f"memory of {task} {setup.name}, {side.name}")
    command = [sys.executable, "-m", "tests.benchmarks.bench_speed", "--peak-of"]
    command += [task, setup.name, side.name, *["--quick"] * options.quick]
    command += ["--compile" if options.compile else "--no-compile"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return float(done.stdout.strip().splitlines()[-1])


def _peak_mb_here(options: argparse.Namespace, task: Task, setup_name: str, side: str) -> float:
    """Run a short turn of one side and return this process's peak, compiling included."""
    setup = next(setup for setup in setups(options.quick) if setup.name == setup_name)
    short = replace(setup, num_reverse_steps=_PEAK_STEPS, num_training_steps=_PEAK_STEPS)
    next(s for s in sides(task, options.compile) if s.name == side).build(short)()
    if device_kind() == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mb()


def print_measurement(found: Row) -> None:
    """Print a table with one line for each side."""
    print(f"\n{found['task']} {found['setup']}, {found['num_steps']} steps a turn")
    print(f"{'':44}{'images/s':>10}{'spread':>8}{'ours is':>9}{'of limit':>10}{'peak MB':>9}")
    for row in found["sides"]:
        peak = f"{row['peak_mb']:.0f}" if row["peak_mb"] else "-"
        print(
            f"  {row['side']:<42}{row['images_per_s']:>10.2f}{row['spread']:>8.0%}"
            f"{row['ours_is_faster_by']:>8.2f}x{row['fraction_of_limit']:>10.1%}{peak:>9}"
        )
    rates = {k: statistics.median(v) / 1e12 for k, v in found["limit_flops_per_s"].items()}
    print("  limit: " + ", ".join(f"{k} {v:.3f} Tflop/s" for k, v in rates.items()))


def print_summary(results: Row) -> None:
    """Print the ratios: ours against diffusers as installed, at its best, and the limit."""
    if results["measurements"]:
        print(
            f"\n{'ratios':<24}{'as installed':>14}{'at its best':>13}{'of limit':>10}{'memory':>9}"
        )
    for found in results["measurements"]:
        rows = {row["side"]: row for row in found["sides"]}
        best = best_of_diffusers(found)
        memory = "-"
        if best["peak_mb"]:
            memory = f"{rows[OURS]['peak_mb'] / best['peak_mb']:.2f}x"
        print(
            f"{found['task'] + ' ' + found['setup']:<24}"
            f"{rows[AS_INSTALLED]['ours_is_faster_by']:>13.2f}x"
            f"{best['ours_is_faster_by']:>12.2f}x{rows[OURS]['fraction_of_limit']:>10.1%}"
            f"{memory:>9}  ({best['side']})"
        )
    for name, seconds in results.get("startup_s", {}).items():
        median, spread = median_and_spread(seconds)
        print(f"{'ddpmctl ' + name:<30}{median:>8.2f} s{spread:>8.0%}")


def best_of_diffusers(found: Row) -> Row:
    """Return the fastest of diffusers' sides."""
    theirs = [row for row in found["sides"] if row["side"].startswith("diffusers")]
    return max(theirs, key=lambda row: float(row["images_per_s"]))


def _is_chosen(name: str, only: list[str]) -> bool:
    return not only or any(part in name for part in only)


def _write(results: Row, path: Path) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plain(options: argparse.Namespace) -> Row:
    return {k: v for k, v in vars(options).items() if k not in ("output", "peak_of")}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 rounds, batch 16, no compiling")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="what contains this: sampling, training:digits, cifar10-64, startup; may be repeated",
    )
    parser.add_argument("--repeats", type=int, help="rounds; 11, or 2 with --quick")
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--compile", action=flag, help="the default but with --quick")
    parser.add_argument("--memory", action=flag, help="the default but with --quick")
    parser.add_argument("--stack", action="store_true", help="also time up, submit, first step")
    parser.add_argument("--output", type=Path, default=Path("bench-speed.json"))
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.repeats = options.repeats or (2 if options.quick else 11)
    for name in ("compile", "memory"):
        if getattr(options, name) is None:
            setattr(options, name, not options.quick)
    return options


if __name__ == "__main__":
    main()
