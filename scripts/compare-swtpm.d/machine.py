# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What belongs to the machine: from a seed, the same to both TPMs: hierarchies, dictionary attack protection, clocks, start-up from all
localities, self-tests, PCRs with their allocation and authorization, measurements by the hardware. Response codes are compared, and
responses where they do not tell the time or the vendor.
"""

import struct
import time

from raw import Comparison
from tpm import CC, ENDORSEMENT, LOCKOUT, NULL, OWNER, PLATFORM, command, tpm2b, u16, u32

PLATFORM_NV = 0x4000000D
HANDLES = (OWNER, ENDORSEMENT, PLATFORM, LOCKOUT, NULL)
BANKS = (4, 0xB, 0xC, 0xD)
SIZES = {4: 20, 0xB: 32, 0xC: 48, 0xD: 64}
RETRY = 0x922
INDEX = 0x01500010
# Variable properties that say what state the platform's part is in.
PROPERTIES = (0x200, 0x201, 0x202, 0x208, 0x20C, 0x20E, 0x20F, 0x210, 0x211)


class Machine(Comparison):
    def __init__(self, tpms, seed):
        super().__init__(tpms, seed)
        self.history = []
        self.at = 0
        self.parted = False
        # A PCR allocation waits for the next boot.
        self.allocated = False
        # If there is an index, it was written.
        self.readable = True

    def both(self, name, raw, body_too=True):
        self.history.append(f"{name}@{self.at} {raw.hex()[:240]}")

        def once(tpm):
            code, body = tpm.raw(raw)
            if code == RETRY:
                # It notes first, once in a boot, that dictionary attack protection is in use.
                code, body = tpm.raw(raw)
            return code if code != 0 or not body_too else body.hex()
        return self.compare(name, [once(tpm) for tpm in self.tpms])

    def compare(self, name, answers):
        """Whether swtpm succeeded."""
        theirs, ours = answers
        self.sent += 1
        self.successes += not isinstance(theirs, int) or theirs == 0
        if theirs != ours:
            self.differences.append((name, theirs, ours, "\n      ".join(self.history[-14:])))
            self.parted = True
        return not isinstance(theirs, int) or theirs == 0

    def move(self, locality):
        self.at = locality
        for tpm in self.tpms:
            tpm.locality(locality)

    # ---- what it does

    def password(self):
        return self.pick((b"", b"pw", b"wrong"), (12, 2, 1))

    def authorized(self, name, handle, parameters=b"", **named):
        return self.both(name, command(name, (handle,), parameters, [self.password()]), **named)

    def hierarchy(self):
        r = self.random
        name = self.pick(("HierarchyControl", "SetPrimaryPolicy", "ChangePPS", "ChangeEPS", "Clear", "ClearControl", "HierarchyChangeAuth",
                          "CreatePrimary", "EvictControl", "SetAlgorithmSet", "PP_Commands", "NV_DefineSpace"),
                         (6, 3, 1, 1, 2, 2, 4, 4, 3, 1, 1, 2))
        handle = self.pick(HANDLES, (5, 4, 8, 3, 1))
        if name == "HierarchyControl":
            which = self.pick((OWNER, ENDORSEMENT, PLATFORM, PLATFORM_NV, NULL, LOCKOUT, 7), (6, 6, 1, 3, 1, 1, 1))
            # A disabled platform stays so until the next boot.
            parameters = u32(which) + bytes([self.pick((0, 1, 2), (4, 6, 1))])
        elif name == "SetPrimaryPolicy":
            alg = self.pick((0xB, 4, 0xC, 0xD, 0x10, 0x1234), (5, 1, 1, 1, 4, 1))
            size = SIZES.get(alg, 0) if r.random() < 0.8 else r.choice((0, 1, 20, 32, 64, 65))
            parameters = tpm2b(bytes(size)) + u16(alg)
        elif name == "ClearControl":
            parameters = bytes([self.pick((0, 1, 2), (8, 3, 1))])
        elif name == "HierarchyChangeAuth":
            parameters = tpm2b(self.pick((b"", b"pw", b"p" * 64, b"p" * 65, b"pw\0\0"), (12, 3, 0, 1, 2)))
        elif name == "CreatePrimary":
            template = struct.pack(">HHI", 8, 0xB, 0x40460 | (r.random() < 0.5) * 0x12) + tpm2b(b"") + u16(5) + u16(0xB) + tpm2b(b"")
            parameters = tpm2b(tpm2b(b"") + tpm2b(b"")) + tpm2b(template) + tpm2b(b"") + u32(0)
            return self.authorized(name, handle, parameters, body_too=False)
        elif name == "EvictControl":
            persistent = self.pick((0x81000001, 0x81010001, 0x81800001), (2, 1, 1))
            handles = handle, self.pick((0x80000000, 0x80000001, persistent))
            return self.both(name, command(name, handles, u32(persistent), [self.password()]))
        elif name == "SetAlgorithmSet":
            parameters = u32(r.randrange(3))
        elif name == "PP_Commands":
            parameters = u32(1) + u32(CC["Clear"]) + u32(0)
        elif name == "NV_DefineSpace":
            attributes = 0x00060006 if handle == OWNER else 0x40060006 if r.random() < 0.9 else 0x00060006
            public = u32(INDEX) + u16(0xB) + u32(attributes) + tpm2b(b"") + u16(8)
            # It is protected, and written at once: a read of it would fail after its password was checked.
            if self.authorized(name, handle, tpm2b(b"pw") + tpm2b(public)):
                written = [self.both("NV_Write", command("NV_Write", (handle, INDEX), tpm2b(bytes(8)) + u16(0), [password]))
                           for password in (b"pw", b"")]
                self.readable = any(written)
            return
        else:
            parameters = b""
        if name == "Clear" and self.allocated:
            # It makes swtpm forget a PCR allocation that waits for the next boot.
            return
        if self.authorized(name, handle, parameters) and name == "Clear":
            self.limits()

    def limits(self):
        """The same limits in both; those of a new TPM are the vendor's."""
        parameters = u32(5) + u32(100000) + u32(100000)
        for tpm in self.tpms:
            tpm.run("DictionaryAttackParameters", (LOCKOUT,), parameters, [b""])
        self.history.append("limits")

    def attack(self):
        name = self.pick(("DictionaryAttackLockReset", "DictionaryAttackParameters", "NV_ReadPublic", "NV_Read"), (2, 1, 1, 8))
        if name == "NV_Read" and not self.readable:
            return
        if name == "NV_Read":
            # Such an index is protected: its password is pw.
            handles = INDEX, INDEX
            return self.both("NV_Read", command("NV_Read", handles, u16(8) + u16(0), [self.pick((b"pw", b"wrong"), (2, 1))]))
        if name == "NV_ReadPublic":
            return self.both(name, command(name, (INDEX,)))
        parameters = b""
        if name == "DictionaryAttackParameters":
            # Long times, so that none passes in one TPM and not in the other.
            tries, recovery = self.pick((0, 1, 3, 32), (1, 1, 4, 4)), self.pick((0, 100000), (1, 5))
            parameters = u32(tries) + u32(recovery) + u32(self.pick((0, 100000)))
        return self.authorized(name, self.pick((LOCKOUT, OWNER), (9, 1)), parameters)

    def clocks(self):
        name = self.pick(("ClockSet", "ClockRateAdjust", "ReadClock"))
        if name == "ClockSet":
            # Clock is 0 no more after a Clear.
            time.sleep(0.003)
            to = self.pick((0, self.random.getrandbits(64), 0xFFFF000000000001, 1 << 40), (1, 1, 1, 1))
            to = to if to != 1 << 40 or self.random.random() < 0.5 else 0
            if to > 1 << 47 and to <= 0xFFFF000000000000:
                to = 0
            return self.authorized(name, self.pick(HANDLES), struct.pack(">Q", to))
        if name == "ClockRateAdjust":
            return self.authorized(name, self.pick(HANDLES), bytes([self.pick((0, 1, 2, 3, 4, 0xFC, 0xFD, 0xFE, 0xFF))]))

        self.history.append(name)

        def counts(tpm):
            code, body = tpm.run(name)
            # Without Time, Clock and whether Clock is safe: ours is exact at all times.
            return body[16:24].hex() if code == 0 else code
        return self.compare(name, [counts(tpm) for tpm in self.tpms])

    def selection(self):
        r = self.random
        count = self.pick((0, 1, 2, 4, 5), (1, 4, 3, 2, 1))
        entries = b""
        for _ in range(count):
            bits = self.pick((0xFFFFFF, 0, 0x020001, r.getrandbits(24)), (5, 2, 2, 3))
            entries += u16(self.pick(BANKS)) + b"\3" + struct.pack("<I", bits)[:3]
        return u32(count) + entries

    def pcrs(self):
        r = self.random
        pcr = self.pick((r.randrange(24), r.randrange(16, 24), 24, NULL), (4, 8, 1, 1))
        name = self.pick(("PCR_Extend", "PCR_Event", "PCR_Reset", "PCR_Read", "PCR_Allocate", "PCR_SetAuthPolicy", "PCR_SetAuthValue"),
                         (6, 4, 6, 8, 2, 2, 2))
        if name == "PCR_Extend":
            algs = [self.pick(BANKS) for _ in range(self.pick((0, 1, 2, 4, 5), (1, 5, 3, 2, 1)))]
            parameters = u32(len(algs)) + b"".join(u16(a) + r.randbytes(SIZES[a]) for a in algs)
        elif name == "PCR_Event":
            parameters = tpm2b(r.randbytes(self.pick((0, 5, 1024, 1025))))
        elif name == "PCR_Read":
            return self.both(name, command(name, (), self.selection()))
        elif name == "PCR_Allocate":
            # The bytes that there are differ: ours do not count a bank that swtpm does not tell of.
            self.history.append(name)
            raw = command(name, (self.pick((PLATFORM, OWNER), (9, 1)),), self.selection(), [self.password()])
            answers = [(body[4:13].hex() if code == 0 else code) for code, body in (tpm.raw(raw) for tpm in self.tpms)]
            self.history[-1] += " " + raw.hex()
            self.allocated |= self.compare(name, answers)
            return
        elif name == "PCR_SetAuthPolicy":
            alg = self.pick((0xB, 0x10), (1, 2))
            size = SIZES.get(alg, 0) if r.random() < 0.9 else 7
            return self.authorized(name, self.pick((PLATFORM, OWNER), (9, 1)), tpm2b(bytes(size)) + u16(alg) + u32(pcr))
        elif name == "PCR_SetAuthValue":
            parameters = tpm2b(self.pick((b"", b"pw"), (3, 1)))
        else:
            parameters = b""
        return self.authorized(name, pcr, parameters)

    def tests(self):
        name = self.pick(("SelfTest", "IncrementalSelfTest"))
        if name == "SelfTest":
            return self.both(name, command(name, (), bytes([self.pick((0, 1, 2), (3, 1, 1))])))
        algs = [self.pick((4, 0xB, 5, 0x7FFF, 0x10, 0), (5, 5, 5, 1, 1, 1)) for _ in range(self.pick((0, 1, 3, 65)))]
        # Which algorithms are tested when is the vendor's.
        return self.both(name, command(name, (), u32(len(algs)) + b"".join(map(u16, algs))), body_too=False)

    def capability(self):
        r = self.random
        if r.random() < 0.5:
            which = self.pick(PROPERTIES)
            return self.both(f"property {which:#x}", command("GetCapability", (), u32(6) + u32(which) + u32(1)))
        cap, first = self.pick(((1, 0), (1, 0x01000000), (1, 0x40000000), (1, 0x80000000), (1, 0x81000000), (3, 0), (5, 0), (5, 1), (7, 0), (7, 5),
                                (9, 0x40000000), (9, 0x4000000B), (9, 0), (10, 0x40000111), (10, 0), (0x200, 0), (1, 0x90000000)))
        # Not to the end of permanent handles, where libtpms has no countdown timer.
        count = self.pick((0, 1) if first >> 8 == 0x400000 else (0, 1, 2, 127, 0xFFFFFFFF))
        return self.both(f"capability {cap} {first:#x}", command("GetCapability", (), u32(cap) + u32(first) + u32(count)))

    def measure(self):
        for tpm in self.tpms:
            # It takes the place of an object in swtpm.
            tpm.run("FlushContext", (), u32(0x80000000))
        data = self.random.randbytes(self.pick((0, 1, 100)))
        self.history.append(f"measure {data.hex()}")
        self.compare("measure", [[part.hex() for part in tpm.measure(data)] for tpm in self.tpms])
        if self.random.random() < 0.3:
            loc = bytes([self.random.randrange(5)])
            self.compare("established", [(t.control(4, size=8)[4], t.control(11, loc).hex(), t.control(4, size=8)[4]) for t in self.tpms])

    def boot(self):
        shutdown = self.pick((None, 0, 1, 2), (4, 4, 8, 1))
        orderly = shutdown is not None and self.both("Shutdown", command("Shutdown", (), u16(shutdown)))
        self.history.append("_TPM_Init")
        self.allocated = False
        for tpm in self.tpms:
            tpm.lose_power()
        # swtpm forgets it, our simulator does not.
        self.move(self.at)
        if self.random.random() < 0.3:
            self.measure()
        for _ in range(3):
            self.move(self.pick((0, 3, 1, 4), (8, 4, 1, 1)))
            # A Startup(STATE) that fails makes swtpm forget that protected things were in use in a boot without a Shutdown.
            kind = self.pick((0, 1, 2), (5, 6, 1)) if orderly else self.pick((0, 2))
            self.both(f"Startup({kind})", command("Startup", (), u16(kind)))
        self.move(0)
        startup = command("Startup", (), u16(0))
        self.both("Startup(CLEAR)", startup)
        self.look()

    def look(self):
        """Everything that tells of PCRs and counts."""
        for bank in BANKS:
            for part in (b"\xff\0\0", b"\0\xff\0", b"\0\0\xff"):
                self.both("PCR_Read", command("PCR_Read", (), u32(1) + u16(bank) + b"\3" + part))
        for which in PROPERTIES:
            self.both(f"property {which:#x}", command("GetCapability", (), u32(6) + u32(which) + u32(1)))

    def step(self):
        what = self.pick((self.hierarchy, self.attack, self.clocks, self.pcrs, self.tests, self.capability, self.measure, self.boot),
                         (10, 5, 3, 14, 1, 6, 1, 2))
        if self.random.random() < 0.3:
            self.move(self.pick((0, 1, 2, 3, 4), (4, 1, 3, 1, 1)))
        what()


def compare(tpms, seed, count):
    comparison = Machine(tpms, seed)
    while comparison.sent < count:
        comparison.history = []
        comparison.parted = comparison.allocated = False
        comparison.readable = True
        for tpm in tpms:
            tpm.start()
        comparison.limits()
        comparison.at = 0
        end = comparison.sent + 400
        while comparison.sent < min(end, count) and not comparison.parted:
            comparison.step()
    return comparison
