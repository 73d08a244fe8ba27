# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Sessions, objects and sequences with their contexts over losses of power: from a seed, the same to both TPMs. Response codes are compared,
handles, the attributes that sessions come back with, digests of policies, whether an audit session is exclusive, and PCRs.
"""

import hashlib
import struct

from raw import Comparison
from tpm import CC, ENDORSEMENT, NULL, OWNER, TRANSIENT, tpm2b, u16, u32

CC.update({"ContextSave": 0x162, "ContextLoad": 0x161, "GetRandom": 0x17B, "HashSequenceStart": 0x186, "SequenceUpdate": 0x15C,
           "SequenceComplete": 0x13E})
RETRY = 0x922
CONTINUE, EXCLUSIVE, RESET, DECRYPT, ENCRYPT, AUDIT = 1, 2, 4, 0x20, 0x40, 0x80
STATE, CLEAR = 1, 0


def command(name, handles=(), parameters=b"", sessions=None):
    """`sessions`: handle and attributes of each; none has a key, so that none has an HMAC."""
    body = b"".join(map(u32, handles))
    if sessions is not None:
        area = b"".join(u32(handle) + tpm2b(b"n" * 16 if handle >> 24 in (2, 3) else b"") + bytes([attributes]) + tpm2b(b"")
                        for handle, attributes in sessions)
        body += u32(len(area)) + area
    body += parameters
    return struct.pack(">HII", 0x8001 if sessions is None else 0x8002, 10 + len(body), CC[name]) + body


class Sessions(Comparison):
    def __init__(self, tpms, seed):
        super().__init__(tpms, seed)
        self.history = []
        # Of each context what either TPM made of it.
        self.contexts = []
        self.sessions = {}
        self.objects = set()
        self.parted = False

    def both(self, name, raw, returns_handle=False, keep=None, sessions=0):
        """What is compared is the code, and of a success what `keep` takes of the parameters."""
        raws = raw if isinstance(raw, list) else [raw, raw]
        self.history.append(f"{name} {raws[1].hex()[:200]}")
        answers, bodies = [], []
        for tpm, bytes_ in zip(self.tpms, raws):
            code, body = tpm.raw(bytes_)
            while code == RETRY:
                code, body = tpm.raw(bytes_)
            bodies.append(body)
            if code == 0x1C9 and name == "SequenceUpdate":
                # libtpms 0.9 blames a parameter for what is no sequence, and later ones the handle.
                code = 0x189
            if code != 0:
                answers.append(code)
                continue
            told = []
            if returns_handle:
                told.append(body[:4].hex())
                body = body[4:]
            if sessions:
                size = struct.unpack(">I", body[:4])[0]
                parameters, area = body[4:4 + size], body[4 + size:]
                for _ in range(sessions):
                    nonce = struct.unpack(">H", area[:2])[0]
                    attributes = area[2 + nonce]
                    area = area[3 + nonce:]
                    mac = struct.unpack(">H", area[:2])[0]
                    area = area[2 + mac:]
                    told.append((nonce, hex(attributes), mac))
                if area:
                    told.append("more")
            else:
                parameters = body
            if keep:
                told.append(keep(parameters))
            answers.append(str(told))
        theirs, ours = answers
        self.sent += 1
        self.successes += not isinstance(theirs, int)
        if theirs != ours:
            self.differences.append((name, theirs, ours, "\n      ".join(self.history[-16:])))
            self.parted = True
        return bodies if not isinstance(theirs, int) and theirs == ours else None

    # ---- what it does

    def a_session(self):
        return self.random.choice(list(self.sessions) or [0x02000000])

    def start(self):
        kind = self.pick((0, 1, 3), (4, 4, 1))
        parameters = tpm2b(b"n" * 16) + tpm2b(b"") + bytes([kind]) + u16(0x10) + u16(0xB)
        bodies = self.both("StartAuthSession", command("StartAuthSession", (NULL, NULL), parameters), returns_handle=True)
        if bodies:
            self.sessions[struct.unpack(">I", bodies[1][:4])[0]] = kind

    def save(self):
        known = list(self.sessions) + list(self.objects)
        handle = self.random.choice(known or [TRANSIENT])
        bodies = self.both("ContextSave", command("ContextSave", (handle,)), keep=lambda body: body[8:16].hex())
        if bodies:
            self.contexts.append(bodies)

    def load(self):
        if self.contexts:
            contexts = self.random.choice(self.contexts[-12:])
            bodies = self.both("ContextLoad", [command("ContextLoad", (), c) for c in contexts], returns_handle=True)
            if bodies:
                handle = struct.unpack(">I", bodies[1][:4])[0]
                if handle >> 24 == 0x80:
                    self.objects.add(handle)

    def flush(self):
        handle = self.random.choice(list(self.sessions) + list(self.objects) or [TRANSIENT])
        if self.both("FlushContext", command("FlushContext", (), u32(handle))):
            self.sessions.pop(handle, None)
            self.objects.discard(handle)

    def uses(self, most=3):
        r = self.random
        count = self.pick((0, 1, 2, 3), (2, 8, 2, 1))
        attributes = [self.pick((0, AUDIT, AUDIT | EXCLUSIVE, AUDIT | RESET, AUDIT | EXCLUSIVE | RESET, ENCRYPT, DECRYPT),
                                (2, 10, 6, 2, 1, 1, 1)) | (r.random() < 0.93) for _ in range(count)]
        return [(self.a_session(), a) for a in attributes] if count else None

    def ended(self, uses):
        for handle, attributes in uses or []:
            if not attributes & CONTINUE:
                self.sessions.pop(handle, None)

    def audit(self):
        uses = self.uses()
        name = self.pick(("GetRandom", "ReadClock", "PCR_Read"), (4, 1, 1))
        parameters = {"GetRandom": u16(4), "ReadClock": b"", "PCR_Read": u32(1) + u16(0xB) + b"\3\0\0\2"}[name]
        if self.both(name, command(name, (), parameters, uses), sessions=len(uses or [])):
            self.ended(uses)

    def report(self):
        sessions = [(0x40000009, 0), (0x40000009, 0)]
        more = self.pick((None, AUDIT | CONTINUE, AUDIT | EXCLUSIVE | CONTINUE), (3, 2, 1))
        if more:
            sessions.append((self.a_session(), more))
        raw = command("GetSessionAuditDigest", (ENDORSEMENT, NULL, self.a_session()), tpm2b(b"") + u16(0x10), sessions)
        self.both("GetSessionAuditDigest", raw, sessions=len(sessions), keep=self.exclusive)

    @staticmethod
    def exclusive(parameters):
        attest = parameters[2:]
        assert attest[:6] == b"\xffTCG\x80\x16", attest
        signer = struct.unpack(">H", attest[6:8])[0]
        rest = attest[8 + signer:]
        extra = struct.unpack(">H", rest[:2])[0]
        rest = rest[2 + extra:]
        # Behind the clock, whose counts are blurred, and the version.
        return rest[17 + 8]

    def policy(self):
        session = self.a_session()
        name = self.pick(("PolicyAuthValue", "PolicyPassword", "PolicyPCR", "PolicyRestart", "PolicyGetDigest", "PolicyCommandCode",
                          "PolicyCounterTimer", "PolicyNvWritten"), (5, 2, 8, 4, 4, 1, 1, 1))
        parameters = {"PolicyPCR": tpm2b(b"") + u32(0), "PolicyCommandCode": u32(CC["HierarchyChangeAuth"]),
                      # No reset is no number of resets that is more than 1000.
                      "PolicyCounterTimer": tpm2b(u32(1000)) + u16(16) + u16(5), "PolicyNvWritten": b"\1"}.get(name, b"")
        self.both(name, command(name, (session,), parameters), keep=bytes.hex if name == "PolicyGetDigest" else None)

    def ready(self):
        """The owner's policy, and then perhaps its use at once."""
        session = self.a_session()
        if self.random.random() < 0.8:
            self.both("PolicyRestart", command("PolicyRestart", (session,)))
        for name, parameters in (("PolicyPCR", tpm2b(b"") + u32(0)), ("PolicyAuthValue", b"")):
            self.both(name, command(name, (session,), parameters))
        if self.random.random() < 0.5:
            self.authorize(session)

    def authorize(self, session=None):
        use = [(session or self.a_session(), self.pick((CONTINUE, 0, CONTINUE | AUDIT), (8, 1, 2)))]
        raw = command("HierarchyChangeAuth", (OWNER,), tpm2b(b""), use)
        if self.both("HierarchyChangeAuth", raw, sessions=1):
            self.ended(use)

    def pcr(self):
        # With all slots taken swtpm's launch flushes an object.
        name = self.pick(("PCR_Event", "PCR_Reset", "PCR_Read", "measure"), (4, 1, 2, len(self.objects) < 3))
        if name == "measure":
            self.history.append(name)
            for tpm in self.tpms:
                tpm.measure(b"launched")
        elif name == "PCR_Read":
            selection = u32(1) + u16(0xB) + b"\3" + self.pick((b"\1\4\0", b"\0\4\1", b"\0\0\xfe"))
            # Without the count of changes, as not all PCRs count in both.
            self.both(name, command(name, (), selection), keep=bytes.hex)
        else:
            handle = self.pick((10, 16, 23, 20))
            parameters = tpm2b(b"event") if name == "PCR_Event" else b""
            self.both(name, command(name, (handle,), parameters, [(0x40000009, 0)]), sessions=1)

    def object(self):
        hierarchy = self.pick((OWNER, NULL, ENDORSEMENT))
        # stClear or not.
        attributes = 0x40472 | self.pick((0, 4))
        template = struct.pack(">HHI", 8, 0xB, attributes) + tpm2b(b"") + u16(5) + u16(0xB) + tpm2b(b"")
        parameters = tpm2b(tpm2b(b"") + tpm2b(b"")) + tpm2b(template) + tpm2b(b"") + u32(0)
        raw = command("CreatePrimary", (hierarchy,), parameters, [(0x40000009, 0)])
        bodies = self.both("CreatePrimary", raw, returns_handle=True)
        if bodies:
            self.objects.add(struct.unpack(">I", bodies[1][:4])[0])

    def sequence(self):
        name = self.pick(("HashSequenceStart", "SequenceUpdate", "SequenceComplete"))
        handle = self.random.choice(list(self.objects) or [TRANSIENT])
        password = [(0x40000009, 0)]
        if name == "HashSequenceStart":
            bodies = self.both(name, command(name, (), tpm2b(b"") + u16(0xB)), returns_handle=True)
            if bodies:
                self.objects.add(struct.unpack(">I", bodies[1][:4])[0])
        elif name == "SequenceUpdate":
            self.both(name, command(name, (handle,), tpm2b(b"data"), password), sessions=1)
        elif self.both(name, command(name, (handle,), tpm2b(b"") + u32(NULL), password), sessions=1, keep=lambda p: p[:34].hex()):
            self.objects.discard(handle)

    def power(self):
        if self.parted:
            return
        r = self.random
        # A shutdown is followed by a loss of power: swtpm takes it for void after some commands that fail.
        shutdowns = self.pick((0, 1, 2), (2, 8, 1))
        for _ in range(shutdowns):
            kind = self.pick((STATE, CLEAR), (4, 1))
            self.both("Shutdown", command("Shutdown", (), u16(kind)))
        # No measurement and no flush of a saved session: swtpm's Resume takes back what came after the Shutdown, ours does not. And no
        # context: one that it refuses makes swtpm's Shutdown void.
        for _ in range(self.pick((0, 1, 2), (7, 3, 1))):
            self.random.choice((self.audit, self.policy, self.save, self.start))()
        if shutdowns or r.random() < 0.6:
            self.history.append("lose power")
            for tpm in self.tpms:
                tpm.lose_power()
            self.objects.clear()
            if r.random() < 0.1:
                self.audit()
        started = False
        while not started and not self.parted:
            kind = self.pick((STATE, CLEAR), (3, 2))
            started = self.both("Startup", command("Startup", (), u16(kind))) or r.random() < 0.3
        if self.both("Startup", command("Startup", (), u16(CLEAR))):
            self.objects.clear()

    def prepare(self):
        policy = bytes(32)
        for name, more in (("PolicyPCR", u32(0) + hashlib.sha256(b"").digest()), ("PolicyAuthValue", b"")):
            policy = hashlib.sha256(policy + u32(CC[name]) + more).digest()
        raw = command("SetPrimaryPolicy", (OWNER,), tpm2b(policy) + u16(0xB), [(0x40000009, 0)])
        for tpm in self.tpms:
            assert tpm.raw(raw)[0] == 0

    def run(self, count):
        self.prepare()
        while self.sent < count and not self.parted:
            self.pick((self.start, self.save, self.load, self.flush, self.audit, self.report, self.policy, self.ready, self.authorize, self.pcr,
                       self.object, self.sequence, self.power), (5, 6, 8, 3, 12, 3, 4, 8, 6, 4, 2, 3, 3))()


def compare(tpms, seed, count):
    """One comparison of several runs, each with new TPMs; one that parted is not gone on with."""
    all_runs, run = Comparison(tpms, seed), 0
    while all_runs.sent < count:
        for tpm in tpms:
            tpm.start()
        once = Sessions(tpms, seed * 1000 + run)
        once.run(min(600, count - all_runs.sent))
        run += 1
        all_runs.sent += once.sent
        all_runs.successes += once.successes
        all_runs.differences += once.differences
    return all_runs

