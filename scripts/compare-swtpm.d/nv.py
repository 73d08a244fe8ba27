# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""NV indices from a seed, the same to both TPMs: definitions with attributes, sizes and policies of all kinds, and for each that succeeds
operations by owner, platform, the index and others, with locks and losses of power between them. Response codes and response
parameters are compared.
"""

import hashlib
import hmac
import struct
import time

from raw import Comparison
from tpm import CC, NULL, OWNER, PASSWORD, PLATFORM, LOCKOUT, command, tpm2b, u16, u32

HASHES = {4: "sha1", 0xB: "sha256", 0xC: "sha384", 0xD: "sha512"}
TYPES = {"ordinary": 0, "counter": 1, "bits": 2, "extend": 4, "pinfail": 8, "pinpass": 9}
PPWRITE, OWNERWRITE, AUTHWRITE, POLICYWRITE = 1, 2, 4, 8
POLICY_DELETE, WRITELOCKED, WRITEALL, WRITEDEFINE, WRITE_STCLEAR, GLOBALLOCK = (1 << n for n in range(10, 16))
PPREAD, OWNERREAD, AUTHREAD, POLICYREAD = (1 << n for n in range(16, 20))
NO_DA, ORDERLY, CLEAR_STCLEAR, READLOCKED, WRITTEN, PLATFORMCREATE, READ_STCLEAR = (1 << n for n in range(25, 32))
WRITERS, READERS = (PPWRITE, OWNERWRITE, AUTHWRITE, POLICYWRITE), (PPREAD, OWNERREAD, AUTHREAD, POLICYREAD)
EXTRAS = (POLICY_DELETE, WRITEALL, WRITEDEFINE, WRITE_STCLEAR, GLOBALLOCK, NO_DA, ORDERLY, CLEAR_STCLEAR, READ_STCLEAR)
RETRY, LOCKOUT_COUNTER = 0x922, 0x20E
INDEX, OTHER = 0x01500001, 0x01500002
PASSWORDS = {INDEX: b"pw", OTHER: b"other"}
POLICIES = ("NV_Write", "NV_Read", "NV_ChangeAuth", "NV_UndefineSpaceSpecial", "NV_WriteLock", "NV_ReadLock", "PolicyAuthValue")
WITH_AUTH_VALUE = ("NV_Write", "NV_Read", "NV_Increment", "NV_WriteLock", "NV_ReadLock")


def digest(alg, code):
    """The policy PolicyCommandCode(code), or PolicyAuthValue."""
    h = hashlib.new(HASHES[alg])
    h.update(bytes(h.digest_size))
    h.update(u32(code) if code == CC["PolicyAuthValue"] else u32(CC["PolicyCommandCode"]) + u32(code))
    return h.digest()


def nv_name(tpm, handle):
    """The Name of an index, or of another handle."""
    if handle >> 24 != 1:
        return u32(handle)
    code, body = tpm.run("NV_ReadPublic", (handle,))
    if code != 0:
        return b""
    skip = 2 + struct.unpack(">H", body[:2])[0]
    return body[skip + 2:]


class Nv(Comparison):
    def __init__(self, tpms, seed):
        super().__init__(tpms, seed)
        self.history = []
        self.parted = False

    def both(self, name, raw, sessions=False, of_tpm=None):
        """Compares codes and, after success, parameters; `of_tpm` makes the command for each TPM, `raw` is then for the history only."""
        text = raw.hex()
        self.history.append(f"{name} {text if len(text) < 200 else text[:200] + '...'}")

        def once(tpm):
            whole = of_tpm(tpm) if of_tpm else raw
            code, body = tpm.raw(whole)
            if code == RETRY:
                # It notes first, once in a boot, that dictionary attack protection is in use.
                code, body = tpm.raw(whole)
            if code != 0:
                return code
            if sessions:
                # What follows the parameters has nonces.
                size = struct.unpack(">I", body[:4])[0]
                body = body[4:4 + size]
            return body.hex()
        theirs, ours = (once(tpm) for tpm in self.tpms)
        self.sent += 1
        ok = not isinstance(theirs, int)
        self.successes += ok
        if theirs != ours:
            self.differences.append((name, theirs, ours, "\n      ".join(self.history[-12:])))
            # What comes after it would differ for the same reason.
            self.parted = True
        return ok

    # ---- definitions

    def attributes(self, nt):
        r = self.random
        bits = nt << 4
        for group in (WRITERS, READERS):
            bits |= sum(r.sample(group, self.pick((0, 1, 2, 3, 4), (1, 8, 8, 4, 4))))
        bits |= sum(b for b in EXTRAS if r.random() < 0.25)
        if nt in (8, 9) and r.random() < 0.8:
            bits = bits & ~(AUTHWRITE | GLOBALLOCK | WRITEDEFINE) | NO_DA
        if nt == 1 and bits & ORDERLY:
            # In swtpm a lock for good is lost with the power, before the next Shutdown.
            bits &= ~WRITEDEFINE
        if r.random() < 0.06:
            bits |= self.pick((WRITELOCKED, READLOCKED, WRITTEN, 1 << 8, 1 << 9, 1 << 20, 1 << 24))
        return bits

    def public(self, handle):
        r = self.random
        nt = self.pick((*TYPES.values(), r.randrange(16)), (6, 4, 4, 4, 4, 4, 1))
        alg = self.pick((0xB, 4, 0xC, 0xD, 0x10, 0x7FFF), (20, 3, 3, 2, 1, 1))
        size = hashlib.new(HASHES[alg]).digest_size if alg in HASHES else 32
        wanted = {0: self.pick((0, 1, 8, 16, 1024, 1025, 2048, 2049, 0xFFFF), (1, 2, 9, 9, 2, 1, 1, 1, 1)), 4: size}.get(nt, 8)
        if r.random() < 0.07:
            wanted = self.pick((0, 7, 9, 20, 32, 48))
        code = self.pick(POLICIES)
        policy = b"" if r.random() < 0.5 else digest(alg, CC[code]) if alg in HASHES else b"7" * 32
        if r.random() < 0.04:
            policy = bytes(r.choice((1, 19, 20, 31, 32, 48, 64, 65)))
        bits = self.attributes(nt)
        auth = self.pick((OWNER, PLATFORM), (3, 2))
        if (auth == PLATFORM) != (r.random() < 0.05):
            bits |= PLATFORMCREATE
        elif r.random() < 0.9:
            bits &= ~POLICY_DELETE
        if r.random() < 0.03:
            handle = self.pick((0, 0x11000001, 0x12000001, 0x80000000, 0x81000001, OWNER))
        return auth, handle, alg, bits, policy, wanted, code

    def define(self, handle):
        auth, handle, alg, bits, policy, size, code = self.public(handle)
        area = u32(handle) + u16(alg) + u32(bits) + tpm2b(policy) + u16(size)
        password = PASSWORDS.get(handle, b"")
        if self.random.random() < 0.03:
            password = b"1" * self.random.choice((20, 21, 32, 33, 48, 49, 64, 65))
        raw = command("NV_DefineSpace", (auth,), tpm2b(password) + tpm2b(area), [b""])
        return self.both("NV_DefineSpace", raw), bits, policy, size, code

    # ---- operations

    def authorization(self, handle):
        """Handle and password."""
        r = self.random.random()
        if r < 0.3:
            return OWNER, b""
        if r < 0.5:
            return PLATFORM, b""
        if r < 0.85:
            return handle, PASSWORDS[handle]
        if r < 0.95:
            return handle, b"wrong"
        other = OTHER if handle == INDEX else INDEX
        return other, PASSWORDS[other]

    def operation(self, handle, bits, policy, size, code):
        r = self.random
        auth, password = self.authorization(handle)
        name = self.pick(("NV_Write", "NV_Read", "NV_Increment", "NV_SetBits", "NV_Extend", "NV_ReadPublic", "NV_WriteLock", "NV_ReadLock",
                          "NV_GlobalWriteLock", "NV_ChangeAuth", "NV_UndefineSpace", "NV_UndefineSpaceSpecial", "boot", "policy",
                          "hmac"), (12, 10, 5, 5, 5, 5, 4, 4, 2, 1, 1, 1, 3, 6, 6))
        nt = bits >> 4 & 15
        if name in ("NV_Write", "NV_Increment", "NV_SetBits", "NV_Extend") and r.random() < 0.7:
            name = {1: "NV_Increment", 2: "NV_SetBits", 4: "NV_Extend"}.get(nt, "NV_Write")
        if name == "boot":
            return self.boot()
        if name == "policy":
            return self.by_policy(handle, bits, size, code)
        if name == "hmac":
            return self.by_hmac(handle, bits, size, code)
        parameters = self.parameters(name, bits, size)
        handles, passwords = (auth, handle), [password]
        if name == "NV_ReadPublic":
            handles, passwords = (handle,), None
        elif name == "NV_GlobalWriteLock":
            handles, passwords = (self.pick((OWNER, PLATFORM)),), [b""]
        elif name == "NV_ChangeAuth":
            handles, passwords = (handle,), [password]
        elif name == "NV_UndefineSpace":
            handles, passwords = (self.pick((OWNER, PLATFORM)), handle), [b""]
        elif name == "NV_UndefineSpaceSpecial":
            handles, passwords = (handle, PLATFORM), [password, b""]
        return self.both(name, command(name, handles, parameters, passwords))

    def parameters(self, name, bits, size):
        r = self.random
        if name == "NV_Write":
            offset = self.pick((0, 1, 4, size, size + 1, 0xFFFF), (9, 2, 2, 1, 1, 1)) & 0xFFFF
            length = self.pick((size - offset, size, 1, 0, 4, 1024, 1025), (12, 2, 2, 1, 2, 1, 1))
            data = r.randbytes(max(0, min(length, 1025)))
            # Of a PIN that is written in part for the first time, swtpm shows what was in its memory before.
            if bits >> 4 & 15 in (8, 9) and (r.random() < 0.7 or not bits & ORDERLY):
                data, offset = struct.pack(">II", r.randrange(3), r.randrange(5)), 0
            return tpm2b(data) + u16(offset)
        if name == "NV_Read":
            offset = self.pick((0, 1, 4, size, size + 1, 0xFFFF), (9, 2, 1, 1, 1, 1)) & 0xFFFF
            return u16(self.pick((max(0, size - offset), size, 1, 0, 1025), (8, 3, 2, 1, 1)) & 0xFFFF) + u16(offset)
        if name == "NV_SetBits":
            return struct.pack(">Q", r.getrandbits(64) & r.getrandbits(64))
        if name == "NV_Extend":
            return tpm2b(r.randbytes(self.pick((0, 1, 32, 1024, 1025))))
        if name == "NV_ChangeAuth":
            return tpm2b(b"pw")
        return b""

    def by_policy(self, handle, bits, size, code):
        """An operation that a policy for one command authorizes."""
        r = self.random
        name = code if r.random() < 0.8 and code != "PolicyAuthValue" else self.pick(POLICIES[:-1])
        start = command("StartAuthSession", (NULL, NULL), tpm2b(bytes(16)) + tpm2b(b"") + b"\x01" + u16(0x10) + u16(0xB))
        sessions = {tpm.raw(start)[1][:4] for tpm in self.tpms}
        if len(sessions) != 1:
            raise RuntimeError("sessions of different handles")
        session = struct.unpack(">I", sessions.pop())[0]
        if r.random() < 0.9:
            self.both("PolicyCommandCode", command("PolicyCommandCode", (session,), u32(CC[code])))
        area = u32(session) + b"\0\0\1" + tpm2b(b"")
        handles = (handle,) if name == "NV_ChangeAuth" else (handle, handle)
        if name == "NV_UndefineSpaceSpecial":
            handles = handle, PLATFORM
            area += u32(PASSWORD) + b"\0\0\0" + tpm2b(b"")
        body = b"".join(map(u32, handles)) + u32(len(area)) + area + self.parameters(name, bits, size)
        self.both(f"{name} by policy", struct.pack(">HII", 0x8002, 10 + len(body), CC[name]) + body, sessions=True)
        for tpm in self.tpms:
            tpm.run("FlushContext", (), u32(session))

    def by_hmac(self, handle, bits, size, code):
        """An operation that the HMAC of a session authorizes, or of a policy with PolicyAuthValue."""
        r = self.random
        by_policy = code == "PolicyAuthValue" and r.random() < 0.7
        name = self.pick(WITH_AUTH_VALUE)
        start = command("StartAuthSession", (NULL, NULL),
                        tpm2b(bytes(16)) + tpm2b(b"") + bytes([by_policy]) + u16(0x10) + u16(0xB))
        sessions = {}
        for tpm in self.tpms:
            _, body = tpm.raw(start)
            sessions[tpm] = struct.unpack(">I", body[:4])[0], body[6:]
            if by_policy:
                tpm.run("PolicyAuthValue", (sessions[tpm][0],))
        auth = handle if r.random() < 0.8 or by_policy else OWNER
        key = b"" if auth == OWNER else PASSWORDS[handle] if r.random() < 0.7 else b"wrong"
        parameters = self.parameters(name, bits, size)

        def whole(tpm):
            session, nonce_tpm = sessions[tpm]
            cp_hash = hashlib.sha256(u32(CC[name]) + nv_name(tpm, auth) + nv_name(tpm, handle) + parameters).digest()
            mac = hmac.digest(key, cp_hash + b"n" * 16 + nonce_tpm + b"\1", "sha256")
            area = u32(session) + tpm2b(b"n" * 16) + b"\1" + tpm2b(mac)
            body = u32(auth) + u32(handle) + u32(len(area)) + area + parameters
            return struct.pack(">HII", 0x8002, 10 + len(body), CC[name]) + body

        self.both(f"{name} by {'PolicyAuthValue' if by_policy else 'HMAC'} with {key}", parameters, sessions=True, of_tpm=whole)
        for tpm in self.tpms:
            tpm.run("FlushContext", (), u32(sessions[tpm][0]))

    def boot(self):
        shutdown = self.pick((None, 0, 1))
        if shutdown is not None:
            self.both("Shutdown", command("Shutdown", (), u16(shutdown)))
        self.history.append("_TPM_Init")
        for tpm in self.tpms:
            tpm.lose_power()
        if self.random.random() < 0.4:
            self.both("Startup(STATE)", command("Startup", (), u16(1)))
        startup = command("Startup", (), u16(0))
        codes = [tpm.raw(startup)[0] for tpm in self.tpms]
        self.history.append("Startup(CLEAR)")
        if codes[0] != codes[1]:
            self.differences.append(("Startup(CLEAR)", *codes, "\n      ".join(self.history[-12:])))
            self.parted = True

    def patience(self):
        """As many wrong passwords as ours takes."""
        self.tpms[0].run("DictionaryAttackParameters", (LOCKOUT,), u32(32) + u32(7200) + u32(86400), [b""])

    def case(self):
        self.history = []
        self.define(OTHER)
        defined, *about = self.define(INDEX)
        for _ in range(20 if defined else 0):
            if self.parted:
                break
            self.operation(INDEX, *about)
        if self.parted:
            self.parted = False
            return False
        for tpm in self.tpms:
            for handle in tpm.handles(0x01000000):
                if tpm.run("NV_UndefineSpace", (PLATFORM, handle), passwords=[b""])[0] != 0:
                    # Its policy may be one that nothing meets.
                    return False
        return True


def compare(tpms, seed, count):
    comparison = Nv(tpms, seed)
    fresh = False
    while comparison.sent < count:
        if not fresh:
            for tpm in tpms:
                tpm.start()
            comparison.patience()
        fresh = comparison.case()
        if tpms[0].tpm_property(LOCKOUT_COUNTER):
            comparison.each("TPM_PT_LOCKOUT_COUNTER", lambda tpm: tpm.tpm_property(LOCKOUT_COUNTER), None)
            fresh = False
    return comparison
