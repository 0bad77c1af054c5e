"""Random faults against the product: `make nemesis`, or `python -m tests.nemesis --doubles N`."""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.nemesis.doubles.lives import FAULTS_A_LIFE, Tally, live
from tests.nemesis.hosts.run import against_hosts
from tests.nemesis.real.run import against_a_stack
from tests.nemesis.report import spread, table


def against_doubles(num_faults: int, seed: int) -> dict[str, Any]:
    """Have so many faults strike simulated lives, one seed after the other."""
    tally = Tally()
    while (struck := tally.faults.total()) < num_faults:
        live(seed, min(FAULTS_A_LIFE, num_faults - struck), tally)
        for line in tally.violations.get(seed, []):
            print(f"seed {seed}: {line}", flush=True)
        seed += 1
    told = {one.name: getattr(tally, one.name) for one in fields(tally)}
    return told | {"faults": dict(tally.faults), "untrue_s": spread(tally.untrue_s)}


def tell_of_doubles(told: dict[str, Any]) -> None:
    """Print what simulated lives came to."""
    print(table(told["faults"]))
    print(f"jobs {told['jobs']}, attempts {told['attempts']}, verbs {told['verbs']}")
    print(f"{told['simulated_s']:.0f} simulated seconds in {told['took_s']:.0f} s")
    print(f"units done again {told['redone']}")
    print(
        "a state that was not so any more stood for {median_s} s, {worst_s} at worst".format(
            **told["untrue_s"]
        )
    )
    print(f"violations {sum(map(len, told['violations'].values()))}")


def tell_of_stack(told: dict[str, Any]) -> None:
    """Print what a run against a real stack or hosts came to."""
    print(table(told["faults"]))
    print(f"jobs {told['jobs']}, attempts {told['attempts']}, looks {told['looks']}")
    print(f"equal to the undisturbed ones to the bit: {told['equal_to_the_bit']}")
    print(f"steps of trainings whose values were stored again: {told['steps_redone']}")
    for kind, seconds in told["truth"].items():
        print(
            f"time to truth, {kind} killed: {seconds['median_s']} s, {seconds['worst_s']} at worst"
        )
    print(f"violations {len(told['violations'])}")


def main() -> int:
    """Run, print, write; 1 if anything was lost or untrue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="of faults on a real stack")
    parser.add_argument(
        "--doubles", type=int, help="so many faults against the loop's doubles instead"
    )
    parser.add_argument("--hosts", action="store_true", help="a cluster on hosts instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two, on average")
    parser.add_argument("--folder", type=Path, default=Path("nemesis"), help="of the stack")
    parser.add_argument("--shapes", nargs="*", default=[], help="of jobs, as train sample; all")
    parser.add_argument("--out", type=Path, default=Path("nemesis.json"))
    asked = parser.parse_args()
    if asked.doubles is not None:
        told = against_doubles(asked.doubles, asked.seed)
        tell_of_doubles(told)
    elif asked.hosts:
        told = against_hosts(asked.minutes, asked.seed, asked.every)
        tell_of_stack(told)
    else:
        told = against_a_stack(
            asked.folder.resolve(), asked.minutes, asked.seed, asked.every, asked.shapes
        )
        tell_of_stack(told)
    kind = "doubles" if asked.doubles is not None else "hosts" if asked.hosts else "stack"
    asked.out.write_text(json.dumps({"seed": asked.seed, kind: told}, indent=1))
    return 1 if told["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
