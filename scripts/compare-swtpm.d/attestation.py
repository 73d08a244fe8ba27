# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Attestation, command audit, RSA encryption: whole commands and damaged ones by response code, and what is attested byte by byte where both
TPMs must say the same. swtpm 0.7.1 has no CertifyX509: certificates of ours are put together here, and OpenSSL verifies them.
"""

import os
import struct
import subprocess

from raw import Comparison
from tpm import ENDORSEMENT, NULL, OWNER, PLATFORM, TRANSIENT, command, resized, tpm2b, u16, u32

SHA1, SHA256, ALG_NULL, RSASSA, RSAES, RSAPSS, OAEP, ECDSA = 4, 0xB, 0x10, 0x14, 0x15, 0x16, 0x17, 0x18
NONE = u16(ALG_NULL)
SIGN, DECRYPT, RESTRICTED = 0x40000, 0x20000, 0x10000
# fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA.
KEY = 0x472
SIGNER, RSA = TRANSIENT, TRANSIENT + 1
COUNT = 3000
INDEX, UNWRITTEN = 0x01500001, 0x01500002
BOTH = [b"", b""]


def ecc(attributes, curve=3, digest=SHA256):
    return u16(0x23) + u16(SHA256) + u32(attributes) + tpm2b(b"") + NONE + u16(ECDSA) + u16(digest) + u16(curve) + NONE + tpm2b(b"") * 2


def rsa(attributes, bits=2048, scheme=NONE):
    return u16(1) + u16(SHA256) + u32(attributes) + tpm2b(b"") + NONE + scheme + u16(bits) + u32(0) + tpm2b(b"")


def take(data):
    """A TPM2B from the front, and the rest."""
    size, = struct.unpack(">H", data[:2])
    return data[2:2 + size], data[2 + size:]


def primary(tpm, hierarchy, template):
    """The response of CreatePrimary after the handle and the size of the parameters."""
    code, body = tpm.run("CreatePrimary", (hierarchy,), tpm2b(tpm2b(b"") * 2) + tpm2b(template) + tpm2b(b"") + u32(0), [b""])
    if code != 0:
        raise RuntimeError(f"{tpm.name} answers {code:#x} to CreatePrimary")
    return body[8:]


def attested(body):
    """What stands in an attestation behind clock and version, which differ."""
    attest, _ = take(body[4:])
    _, rest = take(attest[6:])
    data, rest = take(rest)
    return attest[:6].hex(), data.hex(), rest[17 + 8:].hex()


class Attestation(Comparison):
    def __init__(self, tpms, seed):
        super().__init__(tpms, seed)
        self.tickets = []
        for tpm in tpms:
            tpm.start()
            primary(tpm, ENDORSEMENT, ecc(KEY | SIGN | RESTRICTED))
            _, rest = take(primary(tpm, OWNER, rsa(KEY | SIGN | DECRYPT)))
            _, rest = take(rest)
            digest, rest = take(rest)
            mac, _ = take(rest[6:])
            self.tickets.append(tpm2b(digest) + NONE + rest[:6] + tpm2b(mac))
        for index in (INDEX, UNWRITTEN):
            public = u32(index) + u16(SHA256) + u32(0x02060006) + tpm2b(b"") + u16(16)
            self.quietly("NV_DefineSpace", (OWNER,), tpm2b(b"") + tpm2b(public), passwords=[b""])
        self.quietly("NV_Write", (OWNER, INDEX), tpm2b(b"0123456789abcdef") + u16(0), passwords=[b""])
        for kind in (0, 1):
            self.quietly("StartAuthSession", (NULL, NULL), tpm2b(b"a" * 16) + tpm2b(b"") + bytes([kind]) + NONE + u16(SHA256))

    def commands(self):
        """(name, handles, parameters by TPM, passwords)"""
        def same(parameters):
            return [parameters, parameters]
        data = same(tpm2b(b"data") + NONE)
        for handles in ((RSA, SIGNER), (RSA, NULL), (SIGNER, RSA)):
            yield "Certify", handles, data, BOTH
        yield "Certify", (SIGNER, RSA), same(tpm2b(b"") + u16(RSAPSS) + u16(SHA1)), BOTH
        for signer in (SIGNER, NULL, RSA):
            yield "CertifyCreation", (signer, RSA), [tpm2b(b"data") + t for t in self.tickets], [b""]
            yield "GetTime", (ENDORSEMENT, signer), data, BOTH
            yield "GetCommandAuditDigest", (ENDORSEMENT, signer), data, BOTH
            for session in (0x02000000, 0x03000001):
                yield "GetSessionAuditDigest", (ENDORSEMENT, signer, session), data, BOTH
            for auth, index in ((OWNER, INDEX), (INDEX, INDEX), (PLATFORM, INDEX), (OWNER, UNWRITTEN), (UNWRITTEN, UNWRITTEN)):
                for size, offset in ((8, 4), (0, 0), (16, 0), (0, 16), (16, 1)):
                    yield "NV_Certify", (signer, auth, index), same(data[0] + u16(size) + u16(offset)), BOTH
            yield "Quote", (signer,), same(data[0] + bytes.fromhex("00000001000b03010000")), [b""]
        for alg, codes, cleared in ((ALG_NULL, [0x17E, 0x145, 0x999], []), (SHA256, [0x17E], []), (SHA256, [], []),
                                    (ALG_NULL, [], [0x17E, 0x140]), (SHA256, [0x17E], [0x17E]), (0x99, [], [])):
            lists = b"".join(u32(len(codes)) + b"".join(map(u32, codes)) for codes in (codes, cleared))
            yield "SetCommandCodeAuditStatus", (OWNER,), same(u16(alg) + lists), [b""]
        for scheme in (NONE, u16(RSAES), u16(OAEP) + u16(SHA256), u16(RSASSA) + u16(SHA256)):
            for label in (b"", b"l\0", b"l"):
                yield "RSA_Encrypt", (RSA,), same(tpm2b(b"message") + scheme + tpm2b(label)), None
                yield "RSA_Decrypt", (RSA,), same(tpm2b(b"\1" * 255) + scheme + tpm2b(label)), [b""]
        yield "RSA_Decrypt", (RSA,), same(tpm2b(b"\1" * 256) + NONE + tpm2b(b"")), [b""]
        for tag, hierarchy in ((0x8024, NULL), (0x8024, OWNER), (0x8022, NULL), (0x8099, NULL), (0x8024, 0x4000000A)):
            ticket = u16(tag) + u32(hierarchy) + tpm2b(b"")
            for key, scheme in ((RSA, u16(RSASSA) + u16(SHA256)), (SIGNER, NONE)):
                yield "Sign", (key,), same(tpm2b(b"\1" * 32) + scheme + ticket), [b""]

    def whole(self):
        """Every command as it is; returns those that succeed."""
        commands = []
        for name, handles, parameters, passwords in list(self.commands()):
            raws = dict(zip(self.tpms, (command(name, handles, p, passwords) for p in parameters)))

            def answer(tpm, name=name, raws=raws):
                code, body = tpm.raw(raws[tpm])
                shown = code == 0 and name in ("NV_Certify", "GetCommandAuditDigest", "GetSessionAuditDigest")
                return f"{code:#x} {attested(body)}" if shown else code
            answers = self.each(name, answer, raws[self.tpms[0]].hex())
            if all(str(a).split()[0] in ("0", "0x0") for a in answers):
                commands.append((name, raws))
        return commands

    def sent_again(self, commands):
        """Some of them stay whole: the state they find is another one each time."""
        name, raws = self.pick(commands)
        if self.random.random() < 0.2:
            self.each(name, lambda tpm: tpm.raw(raws[tpm])[0], raws[self.tpms[0]].hex())
        else:
            self.damaged(name, raws)

    def damaged(self, name, raws):
        raws = {tpm: bytearray(raw) for tpm, raw in raws.items()}
        size = len(raws[self.tpms[0]])
        kind = self.random.randrange(4)
        if kind < 2:
            at, byte = self.random.randrange(10, size), self.pick([0, 1, 2, 4, 0xB, 0x10, 0x18, 0x40, 0x80, 0xFF, self.random.randrange(256)])
            # Where tickets differ, a byte may happen to be the one that was there.
            if len({raw[at] for raw in raws.values()}) == 1:
                for raw in raws.values():
                    raw[at] = byte
        cut = self.random.randrange(10, size) if kind == 2 else size
        more = self.random.randbytes(self.random.randrange(1, 5)) if kind == 3 else b""
        raws = {tpm: resized(bytes(raw[:cut]) + more) for tpm, raw in raws.items()}
        self.each(f"damaged {name}", lambda tpm: tpm.raw(raws[tpm])[0], raws[self.tpms[0]].hex())


def tlv(tag, content):
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + u16(size)
    return bytes([tag]) + length + content


def elements(value):
    """The elements in a constructed value, whose lengths take up to two bytes."""
    def header(data):
        return (4, data[2] << 8 | data[3]) if data[1] == 0x82 else (3, data[2]) if data[1] == 0x81 else (2, data[1])
    rest, found = value[header(value)[0]:], []
    while rest:
        start, size = header(rest)
        found.append(rest[:start + size])
        rest = rest[start + size:]
    return found


def certificate(ours, directory, signer, subject):
    """Has a certificate of `subject` made; what OpenSSL says of it."""
    ours.start()
    public, _ = take(primary(ours, OWNER, signer))
    primary(ours, ENDORSEMENT, subject)
    issuer, holder = (tlv(0x30, tlv(0x31, tlv(0x30, bytes.fromhex("0603550403") + tlv(0x0C, n)))) for n in (b"issuer", b"subject"))
    validity = tlv(0x30, tlv(0x17, b"250101000000Z") + tlv(0x17, b"491231235959Z"))
    usage = tlv(0xA3, tlv(0x30, tlv(0x30, bytes.fromhex("0603551d0f0101ff") + tlv(0x04, bytes.fromhex("03020780")))))
    partial = tlv(0x30, issuer + validity + holder + usage)
    code, body = ours.run("CertifyX509", (RSA, SIGNER), tpm2b(b"") + NONE + tpm2b(partial), BOTH)
    if code != 0:
        return f"code {code:#x}"
    added, rest = take(body[4:])
    _, rest = take(rest)
    first, rest = take(rest[4:])
    if signer[:2] == u16(1):
        signature = first
    else:
        second, _ = take(rest)
        signature = tlv(0x30, b"".join(tlv(2, (b"\0" + n).lstrip(b"\0") if n.lstrip(b"\0")[0] < 0x80 else b"\0" + n.lstrip(b"\0"))
                                       for n in (first, second)))
    version, serial, algorithm, key = elements(added)
    tbs = tlv(0x30, version + serial + algorithm + issuer + validity + holder + key + usage)
    with open(os.path.join(directory, "cert.der"), "wb") as file:
        file.write(tlv(0x30, tbs + algorithm + tlv(3, b"\0" + signature)))
    # An authority with the signer's key, so that OpenSSL takes the algorithm from the certificate.
    if signer[:2] == u16(1):
        numbers = tlv(0x30, tlv(2, b"\0" + take(public[-int.from_bytes(signer[-8:-6], "big") // 8 - 2:])[0]) + tlv(2, b"\1\0\1"))
        spki = tlv(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + tlv(3, b"\0" + numbers))
    else:
        y_size = {3: 32, 4: 48}[struct.unpack(">H", signer[-8:-6])[0]]
        x, y = take(public[-2 * y_size - 4:])
        curve = bytes.fromhex("06082a8648ce3d030107" if y_size == 32 else "06052b81040022")
        spki = tlv(0x30, tlv(0x30, bytes.fromhex("06072a8648ce3d0201") + curve) + tlv(3, b"\0\4" + x + take(y)[0]))
    with open(os.path.join(directory, "key.der"), "wb") as file:
        file.write(spki)
    done = subprocess.run(
        "set -e; echo basicConstraints=CA:TRUE > ca.ext; openssl ecparam -name prime256v1 -genkey -noout -out ca.key;"
        "openssl pkey -pubin -inform DER -in key.der -out key.pem;"
        "openssl req -new -key ca.key -subj /CN=issuer -out ca.csr;"
        "openssl x509 -req -in ca.csr -force_pubkey key.pem -signkey ca.key -out ca.pem"
        " -extfile ca.ext;"
        "openssl x509 -inform DER -in cert.der -out cert.pem; openssl verify -partial_chain -trusted ca.pem cert.pem",
        shell=True, cwd=directory, capture_output=True, text=True, check=False)
    return "OK" if done.returncode == 0 else done.stderr[-300:] + done.stdout[-300:]


def compare(tpms, seed, count):
    comparison = Attestation(tpms, seed)
    commands = comparison.whole()
    # RSA takes its time.
    count = min(count, COUNT)
    while comparison.sent < count:
        comparison.sent_again(commands)
    ours = tpms[1]
    key = KEY | SIGN
    signers = [ecc(key), ecc(key, 4, 0xC)] + [
        rsa(key, scheme=u16(scheme) + u16(digest)) for scheme in (RSASSA, RSAPSS) for digest in (SHA1, SHA256, 0xD)]
    for signer in signers:
        for subject in (ecc(key), ecc(key, 5), rsa(key, 1024)):
            said = certificate(ours, ours.directory, signer, subject)
            comparison.sent += 1
            if said != "OK":
                comparison.differences.append(("CertifyX509", "OK", said, (signer + subject).hex()))
    return comparison
