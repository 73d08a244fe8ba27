# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The steps: lines of shell with tpm2-tools, run against each TPM in a directory of its own.

A line of steps/* is a step, a comment, or one of

    %exact    from here on the output is compared as it is
    %masked   from here on long strings of hexadecimal digits only count by their length: keys, names, digests of them
"""

import difflib
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

LONG_HEX = re.compile(r"\b(0x)?[0-9a-fA-F]{32,}\b")
CLOCK = re.compile(r"^((?:time|clock|time_info\.clock|clock_info\.clock|clockInfo\.clock): )\d+$")
# ECDSA's in DER, whose length varies with its numbers.
SIGNATURE = re.compile(r"\bsig: [0-9a-f]+$")
CODE = re.compile(r"\((0x[0-9A-Fa-f]+)\)")
SECONDS = 120


@dataclass
class Difference:
    """What differs in a step: lines with - of swtpm and + of ours."""

    step: str
    lines: list = field(default_factory=list)


def read(directory):
    """(step, masked) for every step, in order of the files' names."""
    steps = []
    for name in sorted(os.listdir(directory)):
        masked = False
        with open(os.path.join(directory, name)) as file:
            for line in map(str.strip, file):
                if line in ("%exact", "%masked"):
                    masked = line == "%masked"
                elif line and not line.startswith("#"):
                    steps.append((line, masked))
    return steps


def flat(text):
    """Lines with the keys above them in front, so that a line tells by itself what it is about."""
    keys, lines = [], []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        keys = [(d, k) for d, k in keys if d < depth]
        lines.append("".join(k for _, k in keys) + line.strip())
        if line.rstrip().endswith(":"):
            keys.append((depth, line.strip()[:-1] + "."))
    return lines


def normalised(text, masked):
    lines = [CLOCK.sub(r"\1<now>", line) for line in flat(text)]
    if masked:
        lines = [SIGNATURE.sub("sig: <signature>", line) for line in lines]
        lines = [LONG_HEX.sub(lambda m: f"<{len(m[0])} digits>", line) for line in lines]
    return lines


def outcome(tpm, step, masked):
    """What is compared of a step."""
    environment = dict(os.environ, TPM2TOOLS_TCTI=f"cmd:exec socat - UNIX-CONNECT:{tpm.socket_path}")
    tpm.disconnect()
    try:
        done = subprocess.run(["bash", "-c", step], cwd=tpm.work, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=SECONDS, check=False)
        output, status = done.stdout.decode(errors="backslashreplace"), done.returncode
        errors = done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        output, status, errors = "", "none in time", ""
    codes = [c for line in errors.splitlines() if not line.startswith("WARNING") for c in CODE.findall(line)]
    tpm.settle()
    return normalised(output, masked) + [f"code {c.lower()}" for c in codes] + [f"status {status}"]


def compare(tpms, directory, only=None):
    """Runs every step on both at once: a Difference for each that differs, and how many there were."""
    for tpm in tpms:
        tpm.start()
        tpm.work = os.path.join(tpm.directory, "work")
        os.mkdir(tpm.work)
    steps = read(directory)
    if only:
        steps = [s for s in steps if re.search(only, s[0])]

    def all_of(tpm):
        return [outcome(tpm, *step) for step in steps]

    with ThreadPoolExecutor(len(tpms)) as pool:
        theirs, ours = pool.map(all_of, tpms)
    differences = []
    for (step, _), a, b in zip(steps, theirs, ours):
        lines = [line for line in difflib.ndiff(a, b) if line[0] in "-+"]
        if lines:
            differences.append(Difference(step, lines))
    return len(steps), differences
