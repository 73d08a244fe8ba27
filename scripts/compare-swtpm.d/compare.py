# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Compares our engine with swtpm. Started by scripts/compare-swtpm, which has the description."""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter

import accepted
import attestation
import ecc
import machine
import nv
import objects
import policy
import raw
import sessions
import steps
import tpm

# Of each kind of difference that is not accepted, this many are shown.
SHOWN = 3


def say(text):
    print(f"compare-swtpm: {text}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(prog="compare-swtpm", description="Does the same to our engine and to swtpm.")
    parser.add_argument("--simulator", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help="of the raw commands (%(default)s)")
    parser.add_argument("--count", type=int, help="how many raw commands of each chapter that takes a number, without a limit of time "
                                                  f"({COUNT} damaged ones, not longer than {SECONDS} s, and {CHAPTER_COUNT} of the others)")
    parser.add_argument("--only", metavar="REGEX", help="only the steps with it in `file: step`, and no raw commands")
    parser.add_argument("--chapter", choices=["steps", "raw", *CHAPTERS], help="only this part")
    parser.add_argument("--show", action="store_true", help="show what ours answers to every step")
    parser.add_argument("--verbose", action="store_true", help="show accepted differences also")
    return parser.parse_args()


# The damaged commands and random templates, which are the most costly, and not longer than this.
COUNT, SECONDS = 2000, 60
# So many of each chapter that takes a number.
CHAPTER_COUNT = 2000
CHAPTERS = {
    "nv": nv.compare, "policy": policy.compare, "machine": machine.compare, "sessions": sessions.compare,
    "attestation": attestation.compare,
    "ecc": lambda tpms, seed, _: ecc.compare(tpms, seed), "objects": lambda tpms, seed, _: objects.compare(tpms, seed),
}


def compare_steps(tpms, only, verbose, show):
    """Number of steps, of accepted differences, of others."""
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "steps")
    count, differences = steps.compare(tpms, directory, only, show)
    others = 0
    for difference in differences:
        entry, unknown = accepted.of_step(difference)
        others += bool(unknown)
        if unknown:
            say(f"{difference.step}\n  DIFFERS; - swtpm, + ours:")
        elif verbose:
            say(f"{difference.step}\n  {entry.reason}; - swtpm, + ours:")
        for line in unknown or (difference.lines if verbose else []):
            print(f"    {line}")
    return count, len(differences) - others, others


class Stage:
    """A part of the whole, and how long it takes."""

    def __init__(self, name):
        self.name = name
        self.started = time.monotonic()

    def end(self, count):
        say(f"{self.name}: {count} in {time.monotonic() - self.started:.0f} s")


def chapters(options):
    """(name, what compares) of all raw commands; those that `--chapter` names, if it is given."""
    def damaged(tpms):
        count = options.count or COUNT
        limit = SECONDS if options.count is None else float("inf")
        comparison, complete = raw.compare(tpms, options.seed, count, limit)
        if not complete:
            say(f"only {comparison.sent} of {count} raw commands in {SECONDS} s")
        return comparison

    def chapter(compare):
        return lambda tpms: compare(tpms, options.seed, options.count or CHAPTER_COUNT)

    known = {"raw": damaged} | {name: chapter(compare) for name, compare in CHAPTERS.items()}
    return [(name, compare) for name, compare in known.items() if options.chapter in (None, name)]


def tell(comparison, verbose):
    """Number of commands, of accepted differences, of others."""
    others, kinds = 0, Counter()
    for name, theirs, ours, about in comparison.differences:
        entry = accepted.of_raw(name, theirs, ours)
        others += entry is None
        kind = name, accepted.code(theirs), accepted.code(ours), entry and entry.reason
        kinds[kind] += 1
        if entry is None and kinds[kind] <= SHOWN:
            say(f"{name} DIFFERS: swtpm {kind[1]}, ours {kind[2]}: {about}")
    if verbose:
        for (name, theirs, ours, reason), number in sorted(kinds.items(), key=str):
            say(f"{number} times {name}: swtpm {theirs}, ours {ours}: {reason}")
    # What is refused everywhere would agree by itself.
    if comparison.successes * 10 < comparison.sent:
        say(f"only {comparison.successes} raw commands succeeded")
        others += 1
    return comparison.sent, len(comparison.differences) - others, others


def main():
    options = arguments()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="compare-swtpm.") as directory:
        tpms = tpm.both(directory, options.simulator)
        try:
            stage = Stage("steps")
            done = tolerated = others = sent = 0
            if options.chapter in (None, "steps"):
                done, tolerated, others = compare_steps(tpms, options.only, options.verbose, options.show)
                stage.end(done)
            if not options.only:
                for name, compare in chapters(options):
                    stage = Stage(name)
                    commands, more_tolerated, more = tell(compare(tpms), options.verbose)
                    stage.end(commands)
                    sent += commands
                    tolerated += more_tolerated
                    others += more
        except tpm.Died as died:
            sys.exit(f"compare-swtpm: {stage.name}: {died}: {'; '.join(t.log() for t in tpms)}")
        finally:
            for each in tpms:
                each.stop()
    if not options.only and options.chapter in (None, "steps"):
        for entry in accepted.STEPS:
            if not entry.used:
                say(f"an accepted difference that there was not: {entry.step}: {entry.reason}")
    say(f"{time.monotonic() - started:.0f} s")
    say(f"{done} steps, {sent} raw commands, {tolerated} accepted differences, {others} others")
    sys.exit(1 if others else 0)


if __name__ == "__main__":
    main()
