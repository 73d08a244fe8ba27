# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Random raw commands from a seed, the same to both TPMs; only the response codes are compared.

Two families: commands that are well formed at first and then damaged (cut, a byte changed, bytes added), and commands
that are well formed but ask for something random, above all objects of random templates.
"""

import hashlib
import hmac
import random
import struct
import time

from keys import G, ORDER, multiply, prime
from tpm import (ENDORSEMENT, LOCKOUT, NULL, OWNER, PLATFORM, TRANSIENT, command, resized, tpm2b, u16, u32)

RSA, KEYEDHASH, ECC, SYMCIPHER = 1, 8, 0x23, 0x25
SHA1, SHA256, SHA384, ALG_NULL = 4, 0xB, 0xC, 0x10
HASHES = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384"}
NO_SCHEME = u16(ALG_NULL)
AES128 = bytes.fromhex("000600800043")
AES256 = bytes.fromhex("000601000043")
FIXED_TPM, FIXED_PARENT, RESTRICTED, DECRYPT = 2, 0x10, 0x10000, 0x20000
# The attributes of Part 2, TPMA_OBJECT, that are tried in all combinations.
ATTRIBUTES = (FIXED_TPM, 4, FIXED_PARENT, 0x20, 0x40, 0x80, 0x400, 0x800, RESTRICTED, DECRYPT, 0x40000)
PARENTS = {"fixed": 0x30472, "movable": 0x30460, "movable-encrypted": 0x30C60}

INDEX = 0x01500001
ORDINARY, COUNTER = 0x02060006, 0x02060016


class Comparison:
    """Sends to both, remembers what differed."""

    def __init__(self, tpms, seed):
        self.tpms = tpms
        self.random = random.Random(seed)
        self.sent = 0
        self.successes = 0
        self.differences = []

    def pick(self, choices, weights=None):
        return self.random.choices(choices, weights)[0]

    def quietly(self, *arguments, **named):
        """A command that both are expected to take."""
        for tpm in self.tpms:
            code, _ = tpm.run(*arguments, **named)
            if code != 0:
                raise RuntimeError(f"{tpm.name} answers {code:#x} to {arguments}")

    def send(self, name, raw):
        return self.each(name, lambda tpm: tpm.raw(raw)[0], raw.hex())

    def each(self, name, what, about):
        """Compares what `what` gives for each TPM."""
        theirs, ours = (what(tpm) for tpm in self.tpms)
        self.sent += 1
        self.successes += theirs == 0
        if theirs != ours:
            self.differences.append((name, theirs, ours, about))
        return theirs, ours

    def clear(self):
        """No NV index, no object, no authorization value is left."""
        for tpm in self.tpms:
            if tpm.run("Clear", (PLATFORM,), passwords=[b""])[0] != 0:
                tpm.start()
            for index in tpm.handles(0x01000000):
                tpm.run("NV_UndefineSpace", (PLATFORM, index), passwords=[b""])
            tpm.settle()


# ---- damaged commands -----------------------------------------------------------------------------------------------

def index(handle=INDEX, attributes=ORDINARY, size=8, auth=OWNER):
    public = u32(handle) + u16(SHA256) + u32(attributes) + tpm2b(b"") + u16(size)
    return command("NV_DefineSpace", (auth,), tpm2b(b"pw") + tpm2b(public), [b""])


def commands():
    """name: (command, those that have to come before)"""
    written = command("NV_Write", (OWNER, INDEX), tpm2b(b"abcdefgh") + u16(0), [b""])
    selection = bytes.fromhex("00000002000b03ffffff000403010000")
    digests = bytes.fromhex("000000020004") + b"a" * 20 + bytes.fromhex("000b") + b"b" * 32
    sensitive = tpm2b(tpm2b(b"pw") + tpm2b(b""))
    template = struct.pack(">HHI", ECC, SHA256, 0x30472) + tpm2b(b"") + AES128 + NO_SCHEME + u16(3) + NO_SCHEME + b"\0" * 4
    primary = command("CreatePrimary", (OWNER,), sensitive + tpm2b(template) + tpm2b(b"") + u32(0), [b""])
    return {
        "NV_DefineSpace": (index(), []),
        "NV_Write": (command("NV_Write", (OWNER, INDEX), tpm2b(b"abcd") + u16(2), [b""]), [index()]),
        "NV_Write-auth": (command("NV_Write", (INDEX, INDEX), tpm2b(b"abcd") + u16(2), [b"pw"]), [index()]),
        "NV_Read": (command("NV_Read", (OWNER, INDEX), u16(8) + u16(0), [b""]), [index(), written]),
        "NV_ReadPublic": (command("NV_ReadPublic", (INDEX,)), [index()]),
        "NV_Increment": (command("NV_Increment", (OWNER, INDEX), b"", [b""]), [index(attributes=COUNTER)]),
        "NV_Write-counter": (command("NV_Write", (OWNER, INDEX), tpm2b(b"abcdefgh") + u16(0), [b""]),
                             [index(attributes=COUNTER)]),
        "PCR_Read": (command("PCR_Read", (), selection), []),
        "PCR_Extend": (command("PCR_Extend", (16,), digests, [b""]), []),
        "PCR_Event": (command("PCR_Event", (23,), tpm2b(b"data"), [b""]), []),
        "PCR_Reset": (command("PCR_Reset", (23,), b"", [b""]), []),
        "GetCapability": (command("GetCapability", (), u32(6) + u32(0x100) + u32(1)), []),
        "SelfTest": (command("SelfTest", (), b"\1"), []),
        "GetTestResult": (command("GetTestResult"), []),
        "Hash": (command("Hash", (), tpm2b(b"abc") + u16(SHA256) + u32(OWNER)), []),
        "ReadClock": (command("ReadClock"), []),
        "HierarchyChangeAuth": (command("HierarchyChangeAuth", (ENDORSEMENT,), tpm2b(b"new"), [b""]), []),
        "Clear": (command("Clear", (PLATFORM,), b"", [b""]), []),
        "CreatePrimary": (primary, []),
        "StartAuthSession": (command("StartAuthSession", (NULL, NULL),
                                     tpm2b(b"n" * 16) + tpm2b(b"") + b"\0" + AES128 + u16(SHA256)), []),
        "ReadPublic": (command("ReadPublic", (TRANSIENT,)), [primary]),
    }


def damaged(c, count):
    """Cut, changed, extended commands."""
    known = commands()
    for _ in range(max(1, count // 40)):
        name = c.pick(list(known))
        whole, before = known[name]
        c.clear()
        for raw in before:
            for tpm in c.tpms:
                tpm.raw(raw)
        for _ in range(40):
            raw = damage(c, whole)
            answers = c.send(f"damaged {name}", raw)
            if 0 in answers and not (answers == (0, 0) and name in LASTING_NOTHING):
                break


# What these change is of no account for what comes after them.
LASTING_NOTHING = ("NV_ReadPublic", "NV_Read", "NV_Write", "NV_Write-auth", "PCR_Read", "PCR_Extend", "PCR_Event", "PCR_Reset",
                   "GetCapability", "SelfTest", "GetTestResult", "Hash", "ReadClock", "ReadPublic", "NV_Increment")


def damage(c, whole):
    kind = c.pick(["cut", "byte", "two", "more"], [4, 10, 2, 1])
    raw = bytearray(whole)
    if kind == "cut":
        return resized(bytes(raw[:c.random.randrange(10, len(raw) + 1)]))
    if kind == "more":
        return resized(bytes(raw) + c.random.randbytes(c.pick([1, 2, 8])))
    for _ in range(1 if kind == "byte" or len(raw) == 10 else 2):
        # The header's size stays right: a wrong one is the transport's business.
        at = c.pick([p for p in range(len(raw)) if not 2 <= p < 10])
        raw[at] = c.pick([0, 1, 0x7F, 0x80, 0xFF, raw[at] ^ 1, raw[at] ^ 0x10, c.random.randrange(256)])
    return bytes(raw)


# ---- well formed, and random ----------------------------------------------------------------------------------------

def nv_attributes(c, count):
    """NV indices of random attributes, size and hierarchy."""
    c.clear()
    for _ in range(count):
        kind = c.pick([0, 1, 2, 4, 8, 9], [4, 2, 1, 1, 1, 1])
        attributes = c.pick([ORDINARY, ORDINARY & ~0x40004, 0x40060006, 0x40004]) | kind << 4
        attributes ^= 1 << c.pick([bit for bit in range(32) if bit != 10])
        auth = c.pick([OWNER, PLATFORM])
        if 0 in c.send("NV_DefineSpace", index(attributes=attributes, size=c.pick([7, 8, 32]), auth=auth)):
            for tpm in c.tpms:
                for there in tpm.handles(0x01000000):
                    for by in (OWNER, PLATFORM):
                        tpm.run("NV_UndefineSpace", (by, there), passwords=[b""])


def nv_ranges(c, count):
    """Reads and writes at the borders of an index."""
    c.clear()
    for tpm in c.tpms:
        tpm.raw(index())
    for _ in range(count):
        size, offset = c.pick([0, 1, 7, 8, 9, 1024, 1025, 0xFFFF]), c.pick([0, 1, 7, 8, 9, 0xFFFF])
        if c.random.random() < 0.5 or size > 1025:
            c.send("NV_Read", command("NV_Read", (OWNER, INDEX), u16(size) + u16(offset), [b""]))
        else:
            c.send("NV_Write", command("NV_Write", (OWNER, INDEX), tpm2b(b"z" * size) + u16(offset), [b""]))


def capabilities(c, count):
    c.clear()
    properties = (0, 1, 0x100, 0x200, 0x12E, 0x1FF, 0x300, 0x01000000, 0x02000000, 0x03000000, 0x20000000, 0x40000000,
                  0x40000110, 0x80000000, 0x81000000, 0x90000000, 0xFFFFFFFF)
    for _ in range(count):
        numbers = c.random.randrange(13), c.pick(properties), c.pick([0, 1, 3, 1000, 0xFFFFFFFF])
        c.send(f"GetCapability {numbers[0]}", command("GetCapability", (), b"".join(map(u32, numbers))))


def symmetric(c):
    return c.pick([NO_SCHEME, AES128, AES256])


def scheme(c, kind):
    if kind == RSA:
        return bytes.fromhex(c.pick(["0010", "0014000b", "0016000b", "0015", "0017000b", "0018000b"], [6, 3, 1, 1, 1, .2]))
    if kind == ECC:
        return bytes.fromhex(c.pick(["0010", "0018000b", "0019000b", "001c000b", "0014000b"], [6, 3, 1, 1, .2]))
    return bytes.fromhex(c.pick(["0010", "0005000b", "000a000b0022", "00050004"], [4, 3, 2, .5]))


def attributes_for(c, kind):
    """Any, or those that make sense with up to two of them turned over."""
    if c.random.random() < 0.5:
        return sum(bit for bit in ATTRIBUTES if c.random.random() < 0.5)
    sensible = {RSA: [0x30072, 0x40072], ECC: [0x30072, 0x40072, 0x20072], KEYEDHASH: [0x52, 0x40072, 0x30072],
                SYMCIPHER: [0x60072, 0x30072]}
    attributes = c.pick(sensible[kind])
    for bit in c.random.sample(ATTRIBUTES, c.random.randrange(3)):
        attributes ^= bit
    return attributes


def template(c, unique=None, change=None):
    """A TPMT_PUBLIC, and its algorithm. `unique` makes the unique field of (kind, name algorithm, attributes)."""
    kind = c.pick([RSA, ECC, KEYEDHASH, SYMCIPHER], [.1, 3, 3, 2])
    attributes = attributes_for(c, kind)
    if c.random.random() < 0.03:
        # Not svnLimited and firmwareLimited: libtpms knows neither, and would say so instead of anything else.
        attributes |= c.pick([1, 0x1000, 0x80000])
    if change:
        attributes = change(attributes)
    name = c.pick([SHA256, ALG_NULL, SHA384, SHA1], [20, .5, 1, 1])
    policy = c.pick([0, 32, 48, 20, 1], [10, 2, .5, .5, .5])
    if kind == RSA:
        parameters = symmetric(c) + scheme(c, RSA) + u16(2048) + u32(c.pick([0, 3, 65537, 17], [8, 1, 1, 1]))
        field = tpm2b(c.pick([b"", b"\0" * 256]))
    elif kind == ECC:
        parameters = symmetric(c) + scheme(c, ECC) + u16(c.pick([3, 0x30], [10, .2])) + c.pick(
            [NO_SCHEME, bytes.fromhex("0022000b")], [10, 1])
        field = tpm2b(b"") * 2
    elif kind == KEYEDHASH:
        parameters = scheme(c, KEYEDHASH)
        field = tpm2b(c.pick([b"", b"\1" * 32]))
    else:
        parameters = symmetric(c)
        field = tpm2b(b"")
    if unique:
        field = unique(kind, name, attributes)
    return struct.pack(">HHI", kind, name, attributes) + tpm2b(b"\1" * policy) + parameters + field, kind


def parent(c, attributes):
    public = struct.pack(">HHI", ECC, SHA256, attributes) + tpm2b(b"") + AES128 + NO_SCHEME + u16(3) + NO_SCHEME + b"\0" * 4
    c.quietly("CreatePrimary", (OWNER,), tpm2b(b"\0" * 4) + tpm2b(public) + tpm2b(b"") + u32(0), [b""])


def creation(c):
    """inSensitive, inPublic, outsideInfo and creationPCR."""
    auth = c.pick([b"", b"pw", b"a" * 32, b"a" * 33, b"a" * 32 + b"\0" * 4, b"a" * 48], [10, 2, 1, 1, 1, 1])
    data = b"x" * c.pick([0, 16, 32, 64, 65, 128, 129], [6, 2, 2, 1, 1, 1, .3])
    public, _ = template(c)
    return tpm2b(tpm2b(auth) + tpm2b(data)) + tpm2b(public) + tpm2b(b"") + u32(0)


def create(kind):
    def run(c, count):
        c.clear()
        parent(c, PARENTS[kind])
        for _ in range(count):
            parameters = creation(c)

            def create_and_load(tpm):
                code, body = tpm.run("Create", (TRANSIENT,), parameters, [b""])
                if code != 0:
                    return code
                # The private part is as long as the other's, and what was created can be loaded.
                private, rest = split(body[4:])
                public, _ = split(rest)
                code, loaded = tpm.run("Load", (TRANSIENT,), tpm2b(private) + tpm2b(public), [b""])
                if code == 0:
                    tpm.run("FlushContext", (), loaded[:4])
                return code and f"0, then Load {code:#x}", len(private)

            c.each(f"Create {kind}", create_and_load, parameters.hex())
    return run


def split(data):
    """A TPM2B and what follows it."""
    size = struct.unpack(">H", data[:2])[0]
    return data[2:2 + size], data[2 + size:]


def flushed(tpm, code, body):
    if code == 0:
        tpm.run("FlushContext", (), body[:4])
    return code


def create_primary(c, count):
    c.clear()
    for _ in range(count):
        parameters = creation(c)
        hierarchy = c.pick([OWNER, ENDORSEMENT, PLATFORM, NULL, LOCKOUT], [4, 4, 4, 4, .3])
        c.each("CreatePrimary", lambda tpm: flushed(tpm, *tpm.run("CreatePrimary", (hierarchy,), parameters, [b""])),
               f"{hierarchy:x} {parameters.hex()}")


def pair(c, primes, movable):
    """A public area and a sensitive one that belong together, or nearly so."""
    made = {}

    def unique(kind, name, attributes):
        digest = HASHES.get(name)
        size = hashlib.new(digest).digest_size if digest else 0
        # Not longer than the nameAlg has it for objects of movable parents: swtpm 0.7.1 with libtpms 0.9.2 would end
        # by a segmentation fault when it wraps a longer authorization value (Import).
        long = size if movable else min(64, size + 1)
        made["auth"] = b"a" * c.pick([0, size, long], [5, 1, 1]) if c.random.random() < .9 else b"a\0"
        made["seed"] = b"s" * c.pick([0, size, size // 2, size + 1 if size < 64 else 3], [3, 5, 1, 1])
        if kind == ECC:
            secret = c.random.randrange(1, ORDER)
            x, y = (n.to_bytes(32, "big") for n in multiply(secret, G))
            wrong = c.pick(["", "other", "off", "short"], [6, 1, 1, 1])
            if wrong == "other":
                secret += 1
            elif wrong == "off":
                y = y[:-1] + bytes([y[-1] ^ 1])
            elif wrong == "short":
                x = x[1:]
            right = secret.to_bytes(32, "big")
            made["sensitive"] = c.pick([right, b"\0" * 32, b"\xff" * 32, right[1:]], [8, 1, 1, 1])
            return tpm2b(x) + tpm2b(y)
        if kind == RSA:
            p, q, r = primes
            modulus = (p * c.pick([q, r])).to_bytes(256, "big")
            modulus = c.pick([modulus, modulus[:-1] + bytes([modulus[-1] ^ 4]), modulus[1:]], [8, 1, 1])
            right = p.to_bytes(128, "big")
            made["sensitive"] = c.pick([right, b"\1" * 128, right[1:]], [6, 1, 1])
            return tpm2b(modulus)
        secret = b"k" * (c.pick([16, 32], [5, 1]) if kind == SYMCIPHER else c.pick([0, 16, 64, 65, 128]))
        made["sensitive"] = secret
        if not digest:
            return tpm2b(b"")
        if attributes & (RESTRICTED | DECRYPT) == RESTRICTED | DECRYPT:
            bound = hmac.new(made["seed"], secret, digest).digest()
        else:
            bound = hashlib.new(digest, made["seed"] + secret).digest()
        return tpm2b(bound if c.random.random() < .8 else bound[:-1] + b"x")

    def without(attributes):
        if movable:
            return attributes & ~(FIXED_TPM | FIXED_PARENT) if c.random.random() < .95 else attributes
        return attributes & ~(FIXED_TPM | FIXED_PARENT | RESTRICTED) if c.random.random() < .6 else attributes

    public, kind = template(c, unique, without)
    sensitive = u16(c.pick([kind, KEYEDHASH], [20, 1])) + tpm2b(made["auth"]) + tpm2b(made["seed"]) + tpm2b(made["sensitive"])
    return public, sensitive if c.random.random() < .75 else b""


def primes_of(c):
    return [prime(c.random, 1024) for _ in range(3)]


def load_external(c, count):
    c.clear()
    primes = primes_of(c)
    for _ in range(count):
        public, sensitive = pair(c, primes, False)
        hierarchy = c.pick([OWNER, NULL, PLATFORM, LOCKOUT], [3, 8 if sensitive else 2, 1, .2])
        parameters = tpm2b(sensitive) + tpm2b(public) + u32(hierarchy)
        c.each("LoadExternal", lambda tpm: flushed(tpm, *tpm.run("LoadExternal", (), parameters)), parameters.hex())


def import_below(kind):
    def run(c, count):
        c.clear()
        parent(c, PARENTS[kind])
        primes = primes_of(c)
        for _ in range(count):
            public, sensitive = pair(c, primes, True)
            duplicate = tpm2b(sensitive) if sensitive else b""
            duplicate += c.pick([b"", b"x"], [19, 1])
            duplicate = duplicate[:-1] if c.random.random() < .05 else duplicate
            key, algorithm = c.pick([(b"", NO_SCHEME), (b"k" * 16, AES128), (b"", AES128), (b"k", NO_SCHEME),
                                     (b"", bytes.fromhex("000a000b"))], [20, 1, 1, 1, 1])
            seed = c.pick([b"", b"x" * 10, tpm2b(b"\1" * 32) * 2, b"\0" * 4, b"\0"], [20, 1, 1, 1, 1])
            parameters = tpm2b(key) + tpm2b(public) + tpm2b(duplicate) + tpm2b(seed) + algorithm

            def import_and_load(tpm):
                code, body = tpm.run("Import", (TRANSIENT,), parameters, [b""])
                if code != 0:
                    return code
                private, _ = split(body[4:])
                code = flushed(tpm, *tpm.run("Load", (TRANSIENT,), tpm2b(private) + tpm2b(public), [b""]))
                return code and f"0, then Load {code:#x}"

            c.each(f"Import {kind}", import_and_load, parameters.hex())
    return run


# What is run, and its part of the whole.
GROUPS = [
    (damaged, .40), (nv_attributes, .08), (nv_ranges, .03), (capabilities, .07), (create_primary, .08), (load_external, .10),
] + [(create(kind), .04) for kind in PARENTS] + [(import_below(kind), .04) for kind in PARENTS]


def compare(tpms, seed, count, seconds):
    """About `count` commands, fewer when the time does not suffice. Gives the comparison, and whether all were sent."""
    c = Comparison(tpms, seed)
    for tpm in tpms:
        tpm.start()
    deadline = time.monotonic() + seconds
    batch = 0
    while c.sent < count:
        for group, part in GROUPS:
            # Every batch and group has a seed of its own, so that one can be added without changing the others.
            c.random.seed(f"{seed} {batch} {GROUPS.index((group, part))}")
            group(c, max(1, int(min(count, 2000) * part)))
            if time.monotonic() > deadline:
                return c, False
        batch += 1
    return c, True
