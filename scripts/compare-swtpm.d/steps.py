# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The steps: lines of shell with tpm2-tools, run against each TPM in a directory of its own. steps/README tells how to write one."""

import difflib
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

LONG_HEX = re.compile(r"\b(0x)?[0-9a-fA-F]{32,}\b")
CLOCK = re.compile(r"^((?:time|clock|time_info\.clock|clock_info\.clock|clockInfo\.clock): )\d+$")
# ECDSA's in DER, whose length varies with its numbers.
SIGNATURE = re.compile(r"\bsig: [0-9a-f]+$")
CODE = re.compile(r"\((0x[0-9A-Fa-f]+)\)")
SECONDS = 90
LATE = "status none in time"
# What every step may use.
PRELUDE = 'peer() { TPM2TOOLS_TCTI=$PEER "$@"; }; '
# Tools that can leave an object loaded.
LOADING = ("activatecredential", "certify", "certifycreation", "commit", "create", "createak", "createek", "createprimary", "duplicate",
           "ecdhkeygen", "ecdhzgen", "encryptdecrypt", "evictcontrol", "gettime", "hmac", "import", "load", "loadexternal", "makecredential",
           "nvcertify", "policyauthorize", "policysigned", "quote", "readpublic", "rsadecrypt", "rsaencrypt", "sign",
           "startauthsession", "unseal", "verifysignature", "certifyX509certutil", "changeauth", "policysecret", "zgen2phase",
           "getcommandauditdigest", "getsessionauditdigest")
MANAGED = PRELUDE + "".join(f'tpm2_{tool}() {{ command tpm2_{tool} "$@"; local s=$?; tpm2_flushcontext -t; return $s; }}; '
                            for tool in LOADING)


@dataclass
class Difference:
    """What differs in a step: lines with - of swtpm and + of ours."""

    step: str
    lines: list = field(default_factory=list)


@dataclass
class Step:
    file: str
    line: str
    masked: bool
    # Objects are flushed after every tool.
    managed: bool
    # New TPMs and an empty directory come first.
    fresh: bool


def read(directory, only):
    """Every step whose file's name and line match, in order of the files' names."""
    steps = []
    for name in sorted(os.listdir(directory)):
        if name == "README":
            continue
        masked = managed = fresh = False
        with open(os.path.join(directory, name)) as file:
            for line in map(str.strip, file):
                if line in ("%exact", "%masked"):
                    masked = line == "%masked"
                elif line == "%fresh":
                    fresh = True
                elif line == "%managed":
                    managed = True
                elif line and not line.startswith("#") and re.search(only or "", f"{name}: {line}"):
                    steps.append(Step(name, line, masked, managed, fresh))
                    fresh = False
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


def outcome(tpm, step):
    """What is compared of a step."""
    if step.fresh:
        start(tpm)
    environment = dict(os.environ, TPM2TOOLS_TCTI=tcti(tpm), TPM2OPENSSL_TCTI=tcti(tpm), PEER=tcti(tpm.peer))
    tpm.disconnect()
    tpm.peer.disconnect()
    shell = subprocess.Popen(["bash", "-c", (MANAGED if step.managed else PRELUDE) + step.line], cwd=tpm.work, env=environment,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        output, errors = (data.decode(errors="backslashreplace") for data in shell.communicate(timeout=SECONDS))
        status = shell.returncode
    except subprocess.TimeoutExpired:
        output, status, errors = "", "none in time", ""
        # With all that it started, so that no connection to the TPM stays.
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()
    codes = [c for line in errors.splitlines() if not line.startswith("WARNING") for c in CODE.findall(line)]
    tpm.settle()
    if "peer " in step.line:
        tpm.peer.settle()
    return normalised(output, step.masked) + [f"code {c.lower()}" for c in codes] + [f"status {status}"]


def tcti(tpm):
    # Not socat: the TCTI ends it by SIGTERM and waits, and once in some thousands of times socat does not end.
    return f"cmd:exec nc.openbsd -U {tpm.socket_path}"


def start(tpm):
    """Starts it and its peer anew, with an empty directory for the steps."""
    tpm.start()
    tpm.peer.start()
    tpm.work = os.path.join(tpm.directory, "work")
    os.mkdir(tpm.work)


def compare(tpms, directory, only=None, show=False):
    """Runs every step on both at once: a Difference for each that differs, and how many there were. `show` prints what ours answers."""
    steps = read(directory, only)

    def all_of(tpm):
        return [outcome(tpm, step) for step in steps]

    # On a busy machine a tool of some step hangs now and then, on either side, which says nothing about a TPM that does not hang again.
    for _ in range(2):
        for tpm in tpms:
            start(tpm)
        with ThreadPoolExecutor(len(tpms)) as pool:
            theirs, ours = pool.map(all_of, tpms)
        late = [step.line for step, *both in zip(steps, theirs, ours) if any(LATE in outcome for outcome in both)]
        if not late:
            break
        print(f"not done in {SECONDS} s: {'; '.join(late)}", flush=True)
    for tpm in tpms:
        tpm.peer.stop()
    differences = []
    for step, a, b in zip(steps, theirs, ours):
        if show:
            print(f"{step.file}: {step.line}", *b, sep="\n    ")
        lines = [line for line in difflib.ndiff(a, b) if line[0] in "-+"]
        if lines:
            differences.append(Difference(step.line, lines))
    return len(steps), differences
