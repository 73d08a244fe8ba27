# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Policies from a seed, the same to both TPMs: every policy command that libtpms has, with right and with wrong parameters, in policy and trial
sessions of all hashes. Response codes and, after each command, policy digests are compared; then an NV index or a hierarchy
with the policy that came out of it is used, which compares the deferred checks.
"""

import hashlib
import hmac
import struct

from raw import Comparison
from tpm import CC, ENDORSEMENT, LOCKOUT, NULL, OWNER, PASSWORD, PLATFORM, command, tpm2b, u16, u32

HASHES = {4: "sha1", 0xB: "sha256", 0xC: "sha384", 0xD: "sha512"}
POLICY, TRIAL = 1, 3
RETRY = 0x922
# The operations of two's complements.
SIGNED = (2, 4, 6, 8)
# Written once, holding eight bytes; never written; a PIN; one that may not be read by its owner.
DATA, BLANK, PIN, CLOSED = 0x01500010, 0x01500011, 0x01500012, 0x01500013
TARGET = 0x01500014
DATA_BYTES = bytes.fromhex("00017fff80fe0305")
OPEN = 0x00060006 | 0x02000000
KEY = b"k" * 32
SEED = b"s" * 32
TEMPLATE = bytes.fromhex("0008000b0000005200000010") + b"\0\0"
COMMANDS = ("PolicySigned", "PolicySecret", "PolicyTicket", "PolicyOR", "PolicyPCR", "PolicyLocality", "PolicyNV", "PolicyCounterTimer",
            "PolicyCommandCode", "PolicyPhysicalPresence", "PolicyCpHash", "PolicyNameHash", "PolicyDuplicationSelect",
            "PolicyAuthorize", "PolicyAuthValue", "PolicyPassword", "PolicyNvWritten", "PolicyTemplate", "PolicyAuthorizeNV",
            "PolicyRestart")
# What can never be met here, or hardly ever, ends a policy; it comes less often.
WEIGHTS = (4, 4, 3, 4, 4, 3, 6, 4, 3, 1, 2, 2, 1, 2, 2, 2, 3, 2, 3, 1)


def digest(alg, *parts):
    return hashlib.new(HASHES[alg], b"".join(parts)).digest()


class Policies(Comparison):
    def fresh(self):
        for tpm in self.tpms:
            tpm.start()
        for index, size, bits in ((DATA, 8, OPEN), (BLANK, 8, OPEN), (CLOSED, 8, OPEN & ~0x20000)):
            area = u32(index) + u16(0xB) + u32(bits) + tpm2b(b"") + u16(size)
            self.quietly("NV_DefineSpace", (OWNER,), tpm2b(b"") + tpm2b(area), [b""])
        for index in (DATA, CLOSED):
            self.quietly("NV_Write", (OWNER, index), tpm2b(DATA_BYTES) + u16(0), [b""])
        area = u32(PIN) + u16(0xB) + u32(OPEN & ~4 | 9 << 4) + tpm2b(b"") + u16(8)
        self.quietly("NV_DefineSpace", (OWNER,), tpm2b(b"") + tpm2b(area), [b""])
        self.quietly("NV_Write", (OWNER, PIN), tpm2b(struct.pack(">II", 0, 1 << 30)) + u16(0), [b""])
        public = u16(8) + u16(0xB) + u32(0x60040) + tpm2b(b"") + u16(0x10) + tpm2b(digest(0xB, SEED, KEY))
        sensitive = u16(8) + tpm2b(b"") + tpm2b(SEED) + tpm2b(KEY)
        self.quietly("LoadExternal", (), tpm2b(sensitive) + tpm2b(public) + u32(NULL))
        self.key_name = u16(0xB) + digest(0xB, public)
        self.history = []

    def both(self, name, raws, body=True):
        """Sends each TPM its command; compares codes and, where asked, bodies. Returns the bodies of a success."""
        if isinstance(raws, bytes):
            raws = [raws, raws]
        self.history.append(f"{name} {raws[1].hex()}"[:400])
        answers = [tpm.raw(raw) for tpm, raw in zip(self.tpms, raws)]
        answers = [tpm.raw(raw) if a[0] == RETRY else a for tpm, raw, a in zip(self.tpms, raws, answers)]
        self.sent += 1
        ok = all(a[0] == 0 for a in answers)
        self.successes += ok
        codes = [a[0] or (a[1].hex() if body else "success") for a in answers]
        if codes[0] != codes[1]:
            self.differences.append((name, *codes, "\n      ".join(self.history[-14:])))
        self.parted |= codes[0] != codes[1]
        return [a[1] for a in answers] if ok else None

    # ---- parameters

    def maybe(self, wrong, right, chance=0.12):
        return wrong if self.random.random() < chance else right

    def hash(self):
        """A digest of the session's hash, mostly the same one, rarely of another size."""
        size = hashlib.new(HASHES[self.alg]).digest_size
        return tpm2b(self.maybe(b"5" * self.pick((0, 19, 20, 31, 32, 33, 48, 64)), self.pick((b"5", b"6"), (5, 1)) * size))

    def cp_hash(self):
        return self.maybe(self.hash(), tpm2b(b""), 0.2)

    def nonce(self):
        """Of each TPM: none, that of the session, another."""
        kind = self.pick("nsw", (4, 3, 1))
        return [tpm2b({"n": b"", "s": nonce, "w": b"wrong"}[kind]) for nonce in self.nonces]

    def expiration(self):
        # Neither TPM's Time reaches the later one here, nor is it before the earlier ones.
        return struct.pack(">i", self.pick((0, 100000, -100000, -2**31 + 1, 2**31 - 1), (6, 2, 5, 1, 1)))

    def operation(self, size):
        r = self.random
        operation = self.maybe(r.choice((12, 0x100, 0xFFFF)), r.randrange(12), 0.05)
        offset = self.maybe(r.choice((size, size + 1, 0xFFFF)), r.randrange(size), 0.1)
        return offset, operation

    def send(self, name):
        """One policy command."""
        r, s = self.random, self.session
        if name in ("PolicySigned", "PolicySecret"):
            return self.authorization(name)
        if name == "PolicyTicket":
            return self.ticket()
        handles, passwords, shown = (s,), None, name
        if name in ("PolicyAuthValue", "PolicyPassword", "PolicyPhysicalPresence", "PolicyRestart"):
            parameters = b""
        elif name == "PolicyOR":
            count = self.maybe(r.choice((0, 1, 8, 9)), r.randrange(2, 9), 0.15)
            digests = [bytes([i]) * r.choice((0, 20, 32, 64)) for i in range(count)]
            if digests:
                digests[r.randrange(count)] = self.maybe(b"7" * 32, self.digest, 0.1)
            parameters = u32(count) + b"".join(map(tpm2b, digests))
        elif name == "PolicyPCR":
            selection = b"".join(u16(a) + b"\x03" + r.randbytes(3) for a in r.sample((0xB, 0xC), r.randrange(3)))
            count = len(selection) // 6
            parameters = self.maybe(self.hash(), tpm2b(b""), 0.2) + u32(count) + selection
        elif name == "PolicyLocality":
            parameters = bytes([self.pick((1, 3, 0x1F, 0x1E, 0, 32, 33, 255), (5, 5, 5, 1, 1, 1, 1, 1))])
        elif name == "PolicyNV":
            index = self.pick((DATA, BLANK, PIN, CLOSED), (12, 1, 1, 1))
            offset, operation = self.operation(8)
            operand = DATA_BYTES[offset:offset + r.randrange(1, 9)] or b""
            if r.random() < 0.4:
                operand = r.randbytes(self.pick((0, 1, 2, 4, 8, 9, 64, 65), (1, 4, 4, 4, 4, 1, 1, 1)))
            if operation in SIGNED and not operand:
                operation = 0
            shown = name
            if operation in SIGNED and operand[0] & DATA_BYTES[min(offset, 7)] & 0x80:
                shown = "PolicyNV of negative numbers"
            parameters = tpm2b(operand) + u16(offset) + u16(operation)
            handles, passwords = (self.pick((OWNER, index, PLATFORM, DATA), (6, 6, 1, 1)), index, s), [self.maybe(b"no", b"", 0.03)]
        elif name == "PolicyCounterTimer":
            offset, operation = self.operation(25)
            if offset < 16:
                # The upper bytes of Time and Clock are zero, the lower ones differ between the two.
                offset, size = self.pick((0, 8)), r.randrange(4)
            else:
                size = self.pick((0, 1, 25 - min(offset, 25), 26, 65), (2, 4, 4, 1, 1))
            operand = b"\0" * size if r.random() < 0.7 else r.randbytes(size)
            # Theirs is one whose Clock is safe from the start.
            if operation in SIGNED and not size:
                # swtpm compares what is behind the empty operand.
                operation = 0
            if offset + size >= 25 and self.kind == POLICY and offset <= 25:
                operand, operation = b"", 0
            parameters = tpm2b(operand) + u16(offset) + u16(operation)
        elif name == "PolicyCommandCode":
            code = self.pick((CC["NV_Write"], CC["NV_Read"], CC["CreatePrimary"], 0xFFF, 0x197), (8, 2, 6, 1, 1))
            if code == 0x197 and self.kind:
                code = CC["NV_Write"]
            parameters = u32(code)
        elif name in ("PolicyCpHash", "PolicyNameHash", "PolicyTemplate"):
            parameters = self.hash()
            if name == "PolicyTemplate" and r.random() < 0.6:
                parameters = tpm2b(digest(self.alg, TEMPLATE))
            if name == "PolicyNameHash" and r.random() < 0.5:
                parameters = tpm2b(digest(self.alg, u32(OWNER)))
            if name == "PolicyCpHash" and r.random() < 0.5:
                parameters = tpm2b(digest(self.alg, u32(CC["CreatePrimary"]), u32(OWNER), self.creation()))
        elif name == "PolicyDuplicationSelect":
            parameters = tpm2b(r.randbytes(self.pick((0, 34, 66, 69), (1, 5, 1, 1)))) + tpm2b(self.key_name) + bytes([self.pick((0, 1, 2), (5, 5, 1))])
        elif name == "PolicyAuthorize":
            alg = self.maybe(0x10, self.pick(tuple(HASHES)))
            size = hashlib.new(HASHES.get(alg, "sha256")).digest_size + self.maybe(r.choice((-1, 1)), 0)
            # Names of 67 and 68 bytes, which there are not, are none to ours only.
            size = min(size, 64)
            parameters = tpm2b(self.maybe(b"", self.digest)) + tpm2b(self.pick((b"", b"ref"))) + tpm2b(u16(alg) + b"n" * size)
            parameters += u16(self.maybe(0x8021, 0x8022, 0.05)) + u32(self.pick((NULL, OWNER, 0x40000010), (5, 5, 1))) + tpm2b(self.pick((b"", b"x" * 64)))
        elif name == "PolicyNvWritten":
            parameters = bytes([self.pick((0, 1, 2), (2, 5, 1))])
        elif name == "PolicyAuthorizeNV":
            if r.random() < 0.6:
                data = u16(self.maybe(4, self.alg)) + self.maybe(b"9" * 32, self.digest)
                index = TARGET + 1
                area = u32(index) + u16(0xB) + u32(OPEN) + tpm2b(b"") + u16(len(data) - self.maybe(1, 0))
                data = data[:struct.unpack(">H", area[-2:])[0]]
                self.both("NV_DefineSpace", command("NV_DefineSpace", (OWNER,), tpm2b(b"") + tpm2b(area), [b""]))
                self.both("NV_Write", command("NV_Write", (OWNER, index), tpm2b(data) + u16(0), [b""]))
                self.both(name, command(name, (self.pick((OWNER, index)), index, s), b"", [b""]))
                return self.both("NV_UndefineSpace", command("NV_UndefineSpace", (OWNER, index), b"", [b""]))
            index = self.pick((DATA, BLANK, CLOSED))
            parameters = b""
            handles, passwords = (self.pick((OWNER, index)), index, s), [b""]
        return self.both(shown, command(name, handles, parameters, passwords), body=not passwords)

    def authorization(self, name):
        r = self.random
        nonces = self.nonce()
        cp_hash, ref, expiration = self.cp_hash(), tpm2b(self.pick((b"", b"ref"))), self.expiration()
        raws = []
        entity = 0x80000000
        alg = self.pick(tuple(HASHES))
        wrong = r.random() < 0.08
        if name == "PolicySecret":
            entity = self.pick((OWNER, ENDORSEMENT, PLATFORM, LOCKOUT, DATA, PIN, 16, 0x80000000, NULL), (6, 4, 4, 2, 2, 2, 1, 3, 1))
        for nonce in nonces:
            parameters = nonce + cp_hash + ref + expiration
            if name == "PolicySigned":
                signed = digest(alg, nonce[2:], expiration, cp_hash[2:], ref[2:])
                mac = hmac.new(KEY, signed + b"!" * wrong, HASHES[alg]).digest()
                parameters += u16(5) + u16(alg) + mac
            raws.append(command(name, (entity, self.session), parameters, [b""] if name == "PolicySecret" else None))
        bodies = self.both(name, raws, body=False)
        if bodies is None:
            return
        shapes = []
        for body in bodies:
            if name == "PolicySecret":
                body = body[4:4 + struct.unpack(">I", body[:4])[0]]
            size = struct.unpack(">H", body[:2])[0]
            timeout, ticket = body[2:2 + size], body[2 + size:]
            # Which hierarchy it is of, how long it is, and whether it ends with a reset.
            shapes.append((size, timeout[:1].hex(), ticket[:8].hex()))
            if size:
                self.tickets.setdefault(self.alg, []).append((cp_hash, ref, entity, timeout, ticket))
        if shapes[0] != shapes[1]:
            self.differences.append((f"{name}'s ticket", *map(str, shapes), "\n      ".join(self.history[-14:])))

    def name_of(self, tpm, entity):
        if entity >> 24 == 1:
            body = tpm.run("NV_ReadPublic", (entity,))[1]
            size = struct.unpack(">H", body[:2])[0]
            return body[2 + size + 2:]
        return self.key_name if entity == 0x80000000 else u32(entity)

    def ticket(self):
        given = self.tickets.get(self.alg)
        if not given:
            return
        i = 2 * self.random.randrange(len(given) // 2)
        damage = self.pick((None, "cp_hash", "ref", "name", "timeout", "short", "tag", "digest"), (12, 1, 1, 1, 1, 1, 1, 1))
        raws = []
        for tpm, (cp_hash, ref, entity, timeout, ticket) in zip(self.tpms, given[i:i + 2]):
            name = self.name_of(tpm, entity)
            cp_hash = tpm2b(b"8" * hashlib.new(HASHES[self.alg]).digest_size) if damage == "cp_hash" else cp_hash
            ref = tpm2b(b"other") if damage == "ref" else ref
            name = name[:-1] + bytes([name[-1] ^ 1]) if damage == "name" else name
            timeout = bytes([timeout[0] ^ 0x80]) + timeout[1:] if damage == "timeout" else timeout
            timeout = timeout[:-1] if damage == "short" else timeout
            ticket = u16(0x8022) + ticket[2:] if damage == "tag" else ticket
            ticket = ticket[:-1] + bytes([ticket[-1] ^ 1]) if damage == "digest" else ticket
            raws.append(command("PolicyTicket", (self.session,), tpm2b(timeout) + cp_hash + ref + tpm2b(name) + ticket))
        self.both("PolicyTicket", raws)

    # ---- use

    def creation(self):
        return tpm2b(tpm2b(b"") + tpm2b(b"secret")) + tpm2b(TEMPLATE) + tpm2b(b"") + u32(0)

    def use(self):
        """The policy authorizes, if what it asks for is met."""
        area = u32(self.session) + b"\0\0" + bytes([self.pick((0, 1))]) + tpm2b(self.maybe(b"pw", b"", 0.1))
        if self.random.random() < 0.5:
            public = u32(TARGET) + u16(self.alg) + u32(0x02000000 | 0x00080008 | 0x00060006) + tpm2b(self.digest) + u16(8)
            self.both("NV_DefineSpace", command("NV_DefineSpace", (OWNER,), tpm2b(b"") + tpm2b(public), [b""]))
            if self.random.random() < 0.6:
                self.both("NV_Write", command("NV_Write", (OWNER, TARGET), tpm2b(b"old") + u16(0), [b""]))
            name = self.pick(("NV_Write", "NV_Read"), (3, 1))
            parameters = tpm2b(b"new") + u16(0) if name == "NV_Write" else u16(8) + u16(0)
            body = u32(TARGET) * 2 + u32(len(area)) + area + parameters
            self.both(f"{name} by policy", struct.pack(">HII", 0x8002, 10 + len(body), CC[name]) + body, body=False)
            self.both("NV_UndefineSpace", command("NV_UndefineSpace", (OWNER, TARGET), b"", [b""]))
        else:
            self.both("SetPrimaryPolicy", command("SetPrimaryPolicy", (OWNER,), tpm2b(self.digest) + u16(self.alg), [b""]))
            body = u32(OWNER) + u32(len(area)) + area + self.creation()
            raw = struct.pack(">HII", 0x8002, 10 + len(body), CC["CreatePrimary"]) + body
            bodies = self.both("CreatePrimary by policy", raw, body=False)
            for tpm, body in zip(self.tpms, bodies or ()):
                tpm.run("FlushContext", (), body[:4])

    def case(self):
        self.parted = False
        self.history = []
        self.alg = self.pick(tuple(HASHES), (1, 6, 1, 1))
        self.kind = self.pick((POLICY, TRIAL), (3, 1))
        start = command("StartAuthSession", (NULL, NULL), tpm2b(bytes(16)) + tpm2b(b"") + bytes([self.kind]) + u16(0x10) + u16(self.alg))
        answers = [tpm.raw(start)[1] for tpm in self.tpms]
        sessions = {a[:4] for a in answers}
        if len(sessions) != 1:
            raise RuntimeError("sessions of different handles")
        self.session = struct.unpack(">I", sessions.pop())[0]
        self.nonces = [a[6:] for a in answers]
        self.digest = bytes(hashlib.new(HASHES[self.alg]).digest_size)
        for _ in range(self.random.randrange(1, 7)):
            self.send(self.pick(COMMANDS, WEIGHTS))
            if self.parted:
                break
            bodies = self.both("PolicyGetDigest", command("PolicyGetDigest", (self.session,)))
            if self.parted or bodies is None:
                break
            self.digest = bodies[0][2:]
        if not self.parted:
            self.use()
        for tpm in self.tpms:
            tpm.run("FlushContext", (), u32(self.session))
        return not self.parted


def compare(tpms, seed, count):
    comparison = Policies(tpms, seed)
    going = False
    while comparison.sent < count:
        if not going:
            comparison.fresh()
            comparison.tickets = {}
        going = comparison.case()
        if comparison.history and len(comparison.tickets.get(0xB, ())) > 40:
            going = False
    return comparison
