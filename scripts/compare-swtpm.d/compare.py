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
    parser.add_argument("--count", type=int, help="how many raw commands, without a limit of time "
                                                  f"({COUNT}, and not longer than {SECONDS} s)")
    parser.add_argument("--only", metavar="REGEX", help="only the steps that it is found in, and no raw commands")
    parser.add_argument("--verbose", action="store_true", help="show accepted differences also")
    return parser.parse_args()


COUNT, SECONDS = 10000, 40
# So many of them on NV indices, about ten seconds.
NV_COUNT = 10000
# And so many on what belongs to the machine, about twenty seconds.
MACHINE_COUNT = 10000


def compare_steps(tpms, only, verbose):
    """Number of steps, of accepted differences, of others."""
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "steps")
    count, differences = steps.compare(tpms, directory, only)
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


def compare_raw(tpms, seed, count, seconds, verbose):
    """Number of commands, of accepted differences, of others."""
    comparison, complete = raw.compare(tpms, seed, count, seconds)
    if not complete:
        say(f"only {comparison.sent} of {count} raw commands in {seconds} s")
    return tell(comparison, verbose)


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
    limit = SECONDS if options.count is None else float("inf")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="compare-swtpm.") as directory:
        tpms = tpm.both(directory, options.simulator)
        try:
            done, tolerated, others = compare_steps(tpms, options.only, options.verbose)
            sent = 0
            if not options.only:
                sent, more_tolerated, more = compare_raw(tpms, options.seed, options.count or COUNT, limit, options.verbose)
                tolerated += more_tolerated
                others += more
                for comparison in (nv.compare(tpms, options.seed, min(options.count or COUNT, NV_COUNT)),
                                   policy.compare(tpms, options.seed, min(options.count or COUNT, NV_COUNT)),
                                   machine.compare(tpms, options.seed, min(options.count or COUNT, MACHINE_COUNT)),
                                   attestation.compare(tpms, options.seed, options.count or COUNT),
                                   ecc.compare(tpms, options.seed), objects.compare(tpms, options.seed)):
                    commands, more_tolerated, more = tell(comparison, options.verbose)
                    sent += commands
                    tolerated += more_tolerated
                    others += more
        except tpm.Died as died:
            sys.exit(f"compare-swtpm: {died}: {'; '.join(t.log() for t in tpms)}")
        finally:
            for each in tpms:
                each.stop()
    if not options.only:
        for entry in accepted.STEPS:
            if not entry.used:
                say(f"an accepted difference that there was not: {entry.step}: {entry.reason}")
    say(f"{time.monotonic() - started:.0f} s")
    say(f"{done} steps, {sent} raw commands, {tolerated} accepted differences, {others} others")
    sys.exit(1 if others else 0)


if __name__ == "__main__":
    main()
