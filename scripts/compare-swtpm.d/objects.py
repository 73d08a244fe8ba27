# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Objects beyond their creation: credentials, changed authorizations, derived objects, CreateLoaded, Rewrap, contexts, tested parameters.

Keys differ between the TPMs, and what is wrapped with them, too. The same steps are therefore done with either TPM's own keys, one TPM
after the other, and the response codes are compared. Derived objects have no keys of their own: their public areas must be equal. And what
one TPM wraps for a key of the other, that one must open.
"""

import hashlib
import hmac
import itertools
import struct

from raw import Comparison
from tpm import ENDORSEMENT, LOCKOUT, NULL, OWNER, PASSWORD, PLATFORM, tpm2b, u16, u32

RSA, ECC, KEYEDHASH, SYMCIPHER, ALG_NULL = 1, 0x23, 8, 0x25, 0x10
FIXED_TPM, ST_CLEAR, FIXED_PARENT, ORIGIN, USER, NO_DA, ENCRYPTED = (1 << n for n in (1, 2, 4, 5, 6, 10, 11))
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
FIXED = FIXED_TPM | FIXED_PARENT | ORIGIN | USER | NO_DA
AES, NO_SYM = u16(6) + u16(128) + u16(0x43), u16(ALG_NULL)
HMAC_SHA256, XOR_SHA256 = u16(5) + u16(0xB), u16(0xA) + u16(0xB) + u16(0x22)
EMPTY = tpm2b(b"")

ACTIVATE, MAKE, CHANGE_AUTH, REWRAP, TEST_PARMS, CREATE_LOADED = 0x147, 0x168, 0x150, 0x152, 0x18A, 0x191
CREATE_PRIMARY, CREATE, IMPORT, LOAD, LOAD_EXTERNAL, READ_PUBLIC = 0x131, 0x153, 0x156, 0x157, 0x167, 0x173
DUPLICATE, EVICT, SAVE, CONTEXT_LOAD, FLUSH = 0x14B, 0x120, 0x162, 0x161, 0x165
START_SESSION, POLICY_COMMAND_CODE = 0x176, 0x16C


def public(alg, attributes, parms, unique, policy=b"", name_alg=0xB):
    return u16(alg) + u16(name_alg) + u32(attributes) + tpm2b(policy) + parms + unique


def ecc(scheme=NO_SYM, curve=3, symmetric=NO_SYM):
    return symmetric + scheme + u16(curve) + u16(ALG_NULL)


def sensitive(auth=b"", data=b""):
    return tpm2b(tpm2b(auth) + tpm2b(data))


def name(area):
    return u16(0xB) + hashlib.sha256(area).digest()


def take(data):
    size = struct.unpack(">H", data[:2])[0]
    return data[2:2 + size], data[2 + size:]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


STORAGE = public(ECC, FIXED | RESTRICTED | DECRYPT, ecc(symmetric=AES), EMPTY * 2)
RSA_STORAGE = public(RSA, FIXED | RESTRICTED | DECRYPT, AES + NO_SYM + u16(2048) + u32(0), EMPTY)
ST_CLEAR_STORAGE = public(ECC, FIXED | RESTRICTED | DECRYPT | ST_CLEAR, ecc(symmetric=AES), EMPTY * 2)
SIGNING = public(ECC, FIXED | SIGN, ecc(), EMPTY * 2)
HMAC_KEY = public(KEYEDHASH, FIXED | SIGN, HMAC_SHA256, EMPTY)
DERIVATION = public(KEYEDHASH, FIXED | RESTRICTED | DECRYPT, XOR_SHA256, EMPTY)
DUPLICATION_POLICY = hashlib.sha256(bytes(32) + u32(POLICY_COMMAND_CODE) + u32(DUPLICATE)).digest()


class One:
    """The steps with one TPM, and what came of them."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.results = []

    def send(self, code, handles=(), parameters=b"", auth=None):
        """`auth`: a password or the handle of a policy session for each."""
        body = b"".join(map(u32, handles))
        if auth is not None:
            area = b"".join(u32(PASSWORD) + b"\0\0\0" + tpm2b(a) if isinstance(a, bytes)
                            else u32(a) + b"\0\0\1\0\0" for a in auth)
            body += u32(len(area)) + area
        body += parameters
        return self.tpm.raw(struct.pack(">HII", 0x8001 if auth is None else 0x8002, 10 + len(body), code) + body)

    def step(self, about, *arguments, **named):
        code, body = self.send(*arguments, **named)
        self.results.append((about, code))
        return body if code == 0 else None

    def primary(self, template, hierarchy=OWNER):
        code, body = self.send(CREATE_PRIMARY, (hierarchy,), sensitive() + tpm2b(template) + EMPTY + u32(0), auth=[b""])
        if code != 0:
            raise RuntimeError(f"{self.tpm.name} answers {code:#x} to CreatePrimary")
        return struct.unpack(">I", body[:4])[0]

    def public(self, handle):
        return take(self.send(READ_PUBLIC, (handle,))[1])[0]

    def flush(self, *handles):
        for handle in handles:
            self.send(FLUSH, (), u32(handle))

    def child(self, parent, template, auth=b""):
        """private and public area, and the handle of the loaded child."""
        _, body = self.send(CREATE, (parent,), sensitive(auth) + tpm2b(template) + EMPTY + u32(0), auth=[b""])
        private, rest = take(body[4:])
        area, _ = take(rest)
        _, body = self.send(LOAD, (parent,), tpm2b(private) + tpm2b(area), auth=[b""])
        return private, area, struct.unpack(">I", body[:4])[0]

    # ---- credentials

    def credentials(self):
        key, other = self.primary(STORAGE), self.primary(SIGNING)
        of = name(self.public(other))
        for handle, size, object_name in ((key, 32, of), (key, 33, b""), (key, 64, b""), (key, 65, b""), (key, 0, b""),
                                          (other, 1, b""), (NULL, 0, b""), (key, 1, b"n" * 66), (key, 1, b"n" * 69)):
            body = self.step("MakeCredential", MAKE, (handle,), tpm2b(b"x" * size) + tpm2b(object_name))
            if size == 32:
                blob, rest = take(body)
                secret, _ = take(rest)

        def activate(about, blob, secret, handles=(other, key), auth=(b"", b"")):
            return self.step(f"ActivateCredential {about}", ACTIVATE, handles, tpm2b(blob) + tpm2b(secret), auth=auth)
        body = activate("right", blob, secret)
        self.results.append(("ActivateCredential right", body and body[4:].hex()[:68]))
        activate("handles", blob, secret, (key, other))
        activate("handles", blob, secret, (key, key))
        activate("authorization", blob, secret, auth=None)
        activate("authorization", blob, secret, auth=[b""])
        for at in (0, 1, 2, 33, 34, len(blob) - 1):
            activate("blob", flipped(blob, at), secret)
            activate("blob", blob[:at], secret)
        for at in (0, 1, 2, 33, 34, 35, 67):
            activate("secret", blob, flipped(secret, at))
            activate("secret", blob, secret[:at])
        for size in (len(blob) + 1, 132, 133):
            activate("blob", blob.ljust(size, b"\0"), secret)
        activate("secret", blob, tpm2b(bytes(32)) * 2)
        activate("secret behind", blob, secret + b"\0")
        self.flush(key, other)

    # ---- authorization values

    def changed_authorizations(self):
        parent, other = self.primary(STORAGE), self.primary(DERIVATION)
        private, area, key = self.child(parent, HMAC_KEY, b"old")

        def change(new, handles=(key, parent), auth=(b"old",)):
            return self.step("ObjectChangeAuth", CHANGE_AUTH, handles, tpm2b(new), auth=auth)
        for size in (0, 1, 32, 33, 64, 65):
            body = change(b"n" * size)
            change(b"n" * min(size, 32) + bytes(max(size - 32, 0)))
        for handles in ((key, other), (key, key), (key, NULL)):
            change(b"n", handles)
        for handles in ((parent, parent), (parent, OWNER), (parent, other)):
            change(b"n", handles, [b""])
        change(b"n", auth=None)
        body = change(b"new")
        self.flush(key, other)
        new, _ = take(body[4:])
        body = self.step("Load", LOAD, (parent,), tpm2b(new) + tpm2b(area), auth=[b""])
        self.flush(struct.unpack(">I", body[:4])[0], parent)

    # ---- derived objects

    def derived(self):
        parent = self.primary(STORAGE)
        secret, seed = bytes(range(64, 96)), bytes(range(32))
        unique = tpm2b(hmac.new(seed, secret, "sha256").digest())
        duplicate = tpm2b(u16(KEYEDHASH) + EMPTY + tpm2b(seed) + tpm2b(secret))
        for scheme_hash in (4, 0xB, 0xC, 0xD):
            area = public(KEYEDHASH, USER | NO_DA | RESTRICTED | DECRYPT, u16(0xA) + u16(scheme_hash) + u16(0x22), unique)
            body = self.step("Import", IMPORT, (parent,), EMPTY + tpm2b(area) + tpm2b(duplicate) + EMPTY + NO_SYM, auth=[b""])
            private, _ = take(body[4:])
            body = self.step("Load", LOAD, (parent,), tpm2b(private) + tpm2b(area), auth=[b""])
            self.derive(struct.unpack(">I", body[:4])[0])
        self.flush(parent)

    def derive(self, parent):
        attributes = FIXED_PARENT | USER | NO_DA
        ecdsa = u16(0x18) + u16(0xB)
        kinds = [(KEYEDHASH, SIGN, HMAC_SHA256), (KEYEDHASH, 0, NO_SYM), (KEYEDHASH, DECRYPT, XOR_SHA256),
                 (KEYEDHASH, DECRYPT | RESTRICTED, XOR_SHA256), (KEYEDHASH, SIGN | ORIGIN, HMAC_SHA256),
                 (KEYEDHASH, SIGN | FIXED_TPM, HMAC_SHA256), (KEYEDHASH, SIGN | ENCRYPTED, HMAC_SHA256),
                 (KEYEDHASH, SIGN | DECRYPT, HMAC_SHA256), (ECC, DECRYPT | RESTRICTED, ecc(symmetric=AES)),
                 (SYMCIPHER, DECRYPT | RESTRICTED, AES), (RSA, SIGN, NO_SYM * 2 + u16(2048) + u32(0))]
        kinds += [(ECC, SIGN, ecc(ecdsa, curve)) for curve in (1, 2, 3, 4, 5)] + [(ECC, DECRYPT, ecc())]
        kinds += [(SYMCIPHER, SIGN | DECRYPT, u16(alg) + u16(bits) + u16(0x43))
                  for alg, bits in ((6, 128), (6, 256), (0x26, 128), (0x26, 256), (3, 128), (3, 192))]
        labels = [(b"l", b"c", b""), (b"l\0", b"c", b""), (b"", b"", b""), (b"", b"", tpm2b(b"l") + tpm2b(b"c")),
                  (b"l", b"", tpm2b(b"L") + tpm2b(b"c") + b"more"), (b"l" * 32, b"c" * 32, b""), (b"l" * 33, b"", b""),
                  (b"", b"", b"\0"), (b"", b"", b"\0\x21" + b"l" * 40)]
        for (alg, extra, parms), (label, context, data) in itertools.chain(
                ((kind, labels[0]) for kind in kinds), ((kinds[0], text) for text in labels)):
            template = public(alg, attributes | extra, parms, tpm2b(label) + tpm2b(context))
            about = f"CreateLoaded derived {alg:#x} {extra:#x} {parms.hex()}"
            body = self.step(about, CREATE_LOADED, (parent,), sensitive(b"", data) + tpm2b(template), auth=[b""])
            if body:
                size = struct.unpack(">I", body[4:8])[0]
                self.results.append((about, body[8:8 + size].hex()))
                self.flush(struct.unpack(">I", body[:4])[0])
        self.flush(parent)

    # ---- CreateLoaded

    def created_and_loaded(self):
        parent = self.primary(STORAGE)
        keyed = FIXED_TPM | FIXED_PARENT | USER
        templates = [SIGNING, HMAC_KEY, public(KEYEDHASH, keyed, NO_SYM, EMPTY), SIGNING + b"\0", SIGNING[:-1], b"",
                     public(KEYEDHASH, keyed | SIGN | ORIGIN, HMAC_SHA256, EMPTY, name_alg=ALG_NULL), b"\0\x99", bytes(200),
                     public(KEYEDHASH, FIXED_PARENT | USER | SIGN | ORIGIN, HMAC_SHA256, EMPTY),
                     public(KEYEDHASH, keyed | SIGN | ORIGIN, HMAC_SHA256, tpm2b(b"u" * 65))]
        inputs = [sensitive(), sensitive(b"", b"data"), sensitive(b"a" * 33), EMPTY, sensitive(b"", b"d" * 128),
                  sensitive(b"", b"d" * 129), tpm2b(EMPTY * 2 + b"x")]
        handles = (parent, OWNER, ENDORSEMENT, PLATFORM, NULL, LOCKOUT, 0, 0x81001234)
        for handle, template, given in itertools.product(handles, templates, inputs):
            body = self.step("CreateLoaded", CREATE_LOADED, (handle,), given + tpm2b(template), auth=[b""])
            if body:
                self.results.append(("CreateLoaded", len(body)))
                self.flush(struct.unpack(">I", body[:4])[0])
        self.flush(parent)

    # ---- duplicates

    def rewrapped(self):
        old, new = self.primary(STORAGE), self.primary(RSA_STORAGE)
        template = public(KEYEDHASH, ORIGIN | USER | NO_DA | SIGN, HMAC_SHA256, EMPTY, DUPLICATION_POLICY)
        _, area, key = self.child(old, template)
        _, body = self.send(START_SESSION, (NULL, NULL), tpm2b(b"n" * 16) + EMPTY + b"\1" + NO_SYM + u16(0xB))
        session = struct.unpack(">I", body[:4])[0]
        self.send(POLICY_COMMAND_CODE, (session,), u32(DUPLICATE))
        body = self.step("Duplicate", DUPLICATE, (key, old), EMPTY + NO_SYM, auth=[session])
        self.flush(session)
        _, rest = take(body[4:])
        duplicate, rest = take(rest)
        seed, _ = take(rest)
        of = name(area)
        for handles, inside, object_name, secret in (
                ((old, old), duplicate, of, seed), ((old, new), duplicate, of, seed), ((old, NULL), duplicate, of, seed),
                ((NULL, NULL), duplicate, of, b""), ((NULL, new), duplicate, of, b""), ((old, NULL), duplicate, of, b""),
                ((NULL, old), duplicate, of, seed), ((key, old), duplicate, of, seed), ((old, key), duplicate, of, seed),
                ((old, old), duplicate, of[:-1], seed), ((old, old), duplicate, b"", seed), ((old, old), b"", of, seed),
                ((old, old), duplicate[:1], of, seed), ((old, old), duplicate[:34], of, seed),
                ((old, old), flipped(duplicate, len(duplicate) - 1), of, seed), ((old, old), b"\xff" * 90, of, seed),
                ((old, old), duplicate, of, flipped(seed, 20)), ((old, old), duplicate, of, seed[:-1]),
                ((NULL, NULL), b"", b"", b""), ((OWNER, NULL), duplicate, of, seed), ((new, old), duplicate, of, seed)):
            self.step("Rewrap", REWRAP, handles, tpm2b(inside) + tpm2b(object_name) + tpm2b(secret), auth=[b""])
        self.step("Rewrap", REWRAP, (old, NULL), tpm2b(duplicate) + tpm2b(of) + tpm2b(seed))
        self.flush(old, new, key)

    # ---- contexts

    def contexts(self):
        key = self.primary(STORAGE)
        for handle in (0x80000003, 0x80FFFFFF, 0x81000000, 0x01000000, OWNER, 0, 0x02000000, 0x0200003F, 0x02000040, 0x03000040,
                       0x02FFFFFF, 0x90000000, 0xFFFFFFFF):
            self.step("FlushContext", FLUSH, (), u32(handle))
            self.step("ContextSave", SAVE, (handle,))
            self.step("EvictControl", EVICT, (OWNER, handle), u32(0x81000000), auth=[b""])
        body = self.step("ContextSave", SAVE, (key,))
        most = self.tpm.tpm_property(0x121)  # TPM_PT_MAX_OBJECT_CONTEXT
        sequence, saved, hierarchy = struct.unpack(">QII", body[:16])
        blob, _ = take(body[16:])
        self.results.append(("ContextSave", (saved, hierarchy)))

        def context(sequence=sequence, saved=saved, hierarchy=hierarchy, blob=blob):
            return struct.pack(">QII", sequence, saved, hierarchy) + tpm2b(blob)
        for changed in [context(), context(sequence + 1), context(blob=b""), context(blob=blob[:1]), context(blob=blob[:10]),
                        context(blob=blob[:66]), context(blob=blob[:-1]), context(blob=blob + b"\0"), body + b"\0", body[:10],
                        context(blob=b"\0\0" + blob[2:]), context(blob=b"\1\0" + blob[2:]), context(blob=b"\0\x20" + blob[2:]),
                        body.ljust(most - 1, b"\0"), body.ljust(most, b"\0"), body.ljust(most, b"\xff"), body.ljust(most + 1, b"\0"),
                        *(context(saved=h) for h in (0x80000001, 0x80000002, 0x80000003, 0x02000000, 0x02000040, 0x81000000)),
                        *(context(hierarchy=h) for h in (ENDORSEMENT, PLATFORM, NULL, LOCKOUT, 0))]:
            loaded = self.step("ContextLoad", CONTEXT_LOAD, (), changed)
            if loaded:
                self.flush(struct.unpack(">I", loaded[:4])[0])
        self.flush(key)
        for template, of in ((STORAGE, NULL), (ST_CLEAR_STORAGE, OWNER), (STORAGE, PLATFORM), (STORAGE, ENDORSEMENT)):
            key = self.primary(template, of)
            body = self.step("ContextSave", SAVE, (key,))
            self.results.append(("ContextSave", body[8:16].hex()))
            for by, handle in itertools.product((OWNER, PLATFORM), (0x81000001, 0x81800001)):
                self.step("EvictControl", EVICT, (by, key), u32(handle), auth=[b""])
            for by, handle in itertools.product((OWNER, PLATFORM), (0x81000001, 0x81800001)):
                self.step("EvictControl", EVICT, (by, handle), u32(handle), auth=[b""])
            self.flush(key)

    def all(self):
        for part in (self.credentials, self.changed_authorizations, self.derived, self.created_and_loaded, self.rewrapped,
                     self.contexts):
            self.tpm.settle()
            part()
        self.tpm.settle()
        return self.results


class Objects(Comparison):
    def parameters(self, count):
        """TestParms with what makes sense or nearly so; curves and hashes are those that both have, or nobody."""
        r = self.random

        def symmetric():
            alg = self.pick((6, 3, 0x26, 0x10, 0xA, 0x13))
            if alg == ALG_NULL:
                return u16(alg)
            if alg == 0xA:
                return u16(alg) + u16(0xB)
            return u16(alg) + u16(self.pick((0, 80, 128, 256, 512))) + u16(self.pick((0x40, 0x41, 0x42, 0x43, 0x44, 0x3F, 0x10, 9)))

        def scheme():
            alg = self.pick((0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 5, 0xA, 0x10, 9))
            if alg in (0x10, 0x15):
                return u16(alg)
            given = u16(self.pick((4, 0xB, 0xC, 0xD, 0x10, 9), (4, 4, 4, 4, 1, 1)))
            return u16(alg) + given + {0x1A: u16(1), 0xA: u16(self.pick((0x22, 0x20, 0x21, 7, 0x10, 9)))}.get(alg, b"")
        for _ in range(count):
            alg = self.pick((RSA, ECC, KEYEDHASH, SYMCIPHER, 9), (4, 4, 4, 4, 1))
            bits = u16(self.pick((0, 512, 2048, 3072, 8192)))
            kdf = self.pick((u16(ALG_NULL), u16(7) + u16(0xB), u16(0x22) + u16(0xD), u16(9)))
            parms = u16(alg) + {RSA: symmetric() + scheme() + bits + u32(0), KEYEDHASH: scheme(), SYMCIPHER: symmetric(),
                                ECC: symmetric() + scheme() + u16(self.pick((0, 1, 2, 3, 4, 5, 0x20, 0x21))) + kdf}.get(alg, b"")
            if r.random() < 0.1:
                parms = parms[:r.randrange(len(parms))] if r.random() < 0.7 else parms + b"\0"
            self.send("TestParms", struct.pack(">HII", 0x8001, 10 + len(parms), TEST_PARMS) + parms)

    def crossing(self):
        """What the one wraps for a storage key of the other, that one opens: duplicates and credentials, with every cipher outside and inside."""
        ciphers = [u16(alg) + u16(bits) + u16(0x43) for alg, bits in ((6, 128), (6, 256), (0x26, 128), (0x26, 256), (3, 128), (3, 192))]
        for here, there in (self.tpms, self.tpms[::-1]):
            source, target = One(here), One(there)
            for cipher, (curve, name_alg) in itertools.product(ciphers, ((3, 0xB), (4, 0xC), (5, 0xD))):
                parent = target.primary(public(ECC, FIXED | RESTRICTED | DECRYPT, ecc(curve=curve, symmetric=cipher), EMPTY * 2,
                                               name_alg=name_alg))
                witness = target.primary(SIGNING)
                _, body = source.send(LOAD_EXTERNAL, (), EMPTY + tpm2b(target.public(parent)) + u32(OWNER))
                new_parent = struct.unpack(">I", body[:4])[0]
                key = source.primary(public(KEYEDHASH, ORIGIN | USER | NO_DA | SIGN, HMAC_SHA256, EMPTY, DUPLICATION_POLICY))
                area = source.public(key)
                for inner in [NO_SYM, *ciphers]:
                    self.crossed(source, target, (key, new_parent, parent), area, inner)
                _, body = source.send(MAKE, (new_parent,), tpm2b(b"credential") + tpm2b(name(target.public(witness))))
                _, body = target.send(ACTIVATE, (witness, parent), body, auth=[b"", b""])
                self.expect("ActivateCredential of the other", tpm2b(b"credential"), body[4:16])
                source.flush(key, new_parent)
                target.flush(parent, witness)

    def crossed(self, source, target, handles, area, inner):
        key, new_parent, parent = handles
        _, body = source.send(START_SESSION, (NULL, NULL), tpm2b(b"n" * 16) + EMPTY + b"\1" + NO_SYM + u16(0xB))
        session = struct.unpack(">I", body[:4])[0]
        source.send(POLICY_COMMAND_CODE, (session,), u32(DUPLICATE))
        _, body = source.send(DUPLICATE, (key, new_parent), EMPTY + inner, auth=[session])
        source.flush(session)
        encryption_key, rest = take(body[4:])
        duplicate, rest = take(rest)
        seed, _ = take(rest)
        code, body = target.send(IMPORT, (parent,), b"".join(map(tpm2b, (encryption_key, area, duplicate, seed))) + inner, auth=[b""])
        self.expect("Import of the other's", 0, code)
        private, _ = take(body[4:])
        code, body = target.send(LOAD, (parent,), tpm2b(private) + tpm2b(area), auth=[b""])
        self.expect("Load of the other's", 0, code)
        target.flush(struct.unpack(">I", body[:4])[0])

    def expect(self, about, expected, actual):
        self.sent += 1
        self.successes += 1
        if expected != actual:
            self.differences.append((about, expected, actual, about))


def compare(tpms, seed):
    comparison = Objects(tpms, seed)
    comparison.clear()
    theirs, ours = (One(tpm).all() for tpm in tpms)
    for number, ((about, a), (_, b)) in enumerate(zip(theirs, ours)):
        kind = about.split()[0]
        comparison.sent += 1
        comparison.successes += a == 0 or not isinstance(a, int)
        if a != b:
            comparison.differences.append((about if kind == "ActivateCredential" else kind, a, b, f"step {number}, {about}"))
    comparison.crossing()
    comparison.parameters(2000)
    return comparison
