# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The two TPMs: processes behind UNIX sockets, and how to put a command together for them."""

import os
import shutil
import socket
import struct
import subprocess
import time

OWNER, NULL, LOCKOUT, ENDORSEMENT, PLATFORM = 0x40000001, 0x40000007, 0x4000000A, 0x4000000B, 0x4000000C
PASSWORD = 0x40000009
TRANSIENT = 0x80000000

CC = {
    "NV_UndefineSpaceSpecial": 0x11F, "Clear": 0x126, "HierarchyChangeAuth": 0x129, "NV_DefineSpace": 0x12A, "CreatePrimary": 0x131,
    "NV_Increment": 0x134, "NV_SetBits": 0x135, "NV_Extend": 0x136, "NV_Write": 0x137, "NV_WriteLock": 0x138,
    "NV_GlobalWriteLock": 0x132, "DictionaryAttackLockReset": 0x139, "DictionaryAttackParameters": 0x13A,
    "NV_ChangeAuth": 0x13B, "NV_ReadLock": 0x14F, "Shutdown": 0x145, "PolicyCommandCode": 0x16C, "PolicyAuthValue": 0x16B, "HierarchyControl": 0x121,
     "NV_UndefineSpace": 0x122, "PCR_Event": 0x13C, "PCR_Reset": 0x13D,
    "SelfTest": 0x143, "Startup": 0x144, "NV_Read": 0x14E, "Create": 0x153, "Import": 0x156, "Load": 0x157,
    "FlushContext": 0x165, "LoadExternal": 0x167, "NV_ReadPublic": 0x169, "ReadPublic": 0x173,
    "StartAuthSession": 0x176, "GetCapability": 0x17A, "GetTestResult": 0x17C, "Hash": 0x17D, "PCR_Read": 0x17E,
    "ChangeEPS": 0x124, "ChangePPS": 0x125, "ClearControl": 0x127, "ClockSet": 0x128, "PCR_Allocate": 0x12B,
    "PCR_SetAuthPolicy": 0x12C, "PP_Commands": 0x12D, "SetPrimaryPolicy": 0x12E, "ClockRateAdjust": 0x130, "EvictControl": 0x120,
    "SetAlgorithmSet": 0x13F, "IncrementalSelfTest": 0x142, "PCR_SetAuthValue": 0x183,
    "ReadClock": 0x181, "PCR_Extend": 0x182,
    "SetPrimaryPolicy": 0x12E, "PolicyNV": 0x149, "PolicySecret": 0x151, "PolicySigned": 0x160, "PolicyAuthorize": 0x16A,
    "PolicyAuthValue": 0x16B, "PolicyCounterTimer": 0x16D, "PolicyCpHash": 0x16E, "PolicyLocality": 0x16F, "PolicyNameHash": 0x170,
    "PolicyOR": 0x171, "PolicyTicket": 0x172, "PolicyPCR": 0x17F, "PolicyRestart": 0x180, "PolicyPhysicalPresence": 0x187,
    "PolicyDuplicationSelect": 0x188, "PolicyGetDigest": 0x189, "PolicyPassword": 0x18C, "PolicyNvWritten": 0x18F,
    "PolicyTemplate": 0x190, "PolicyAuthorizeNV": 0x192,
    "ECDH_ZGen": 0x154, "Sign": 0x15D, "ECDH_KeyGen": 0x163, "VerifySignature": 0x177, "ECC_Parameters": 0x178, "Commit": 0x18B,
    "GetCommandAuditDigest": 0x133, "SetCommandCodeAuditStatus": 0x140, "Certify": 0x148, "CertifyCreation": 0x14A, "GetTime": 0x14C,
    "GetSessionAuditDigest": 0x14D, "Quote": 0x158, "RSA_Decrypt": 0x159, "RSA_Encrypt": 0x174, "NV_Certify": 0x184, "CertifyX509": 0x197,
    "ZGen_2Phase": 0x18D, "EC_Ephemeral": 0x18E, "ECC_Encrypt": 0x199, "ECC_Decrypt": 0x19A,
}


class Died(Exception):
    """A TPM closed its connection, or did not answer in time."""


def u16(value):
    return struct.pack(">H", value)


def u32(value):
    return struct.pack(">I", value)


def tpm2b(data):
    return u16(len(data)) + data


def command(name, handles=(), parameters=b"", passwords=None):
    """A command with one password session for each of `passwords`, or without sessions."""
    body = b"".join(map(u32, handles))
    if passwords is not None:
        area = b"".join(u32(PASSWORD) + b"\0\0\0" + tpm2b(password) for password in passwords)
        body += u32(len(area)) + area
    body += parameters
    return struct.pack(">HII", 0x8001 if passwords is None else 0x8002, 10 + len(body), CC[name]) + body


def resized(raw):
    """`raw` with the size in its header made right."""
    return raw[:2] + u32(len(raw)) + raw[6:]


class Tpm:
    """A TPM program of its own directory. One client is served at a time: steps() or raw()."""

    def __init__(self, name, directory, arguments):
        self.name = name
        self.directory = directory
        self.socket_path = os.path.join(directory, "tpm.sock")
        self.arguments = arguments
        self.process = None
        self.connection = None
        # A second TPM of ours for steps in which two take part.
        self.peer = None

    def start(self):
        """Starts it anew, with a state of its own making; ends what was there."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(os.path.join(self.directory, "state"))
        with open(os.path.join(self.directory, "log"), "wb") as log:
            arguments = [a.format(dir=self.directory, socket=self.socket_path) for a in self.arguments]
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connect()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise Died(f"{self.name} does not start: {self.log()}") from None
                time.sleep(0.01)

    def stop(self):
        if self.peer is not None:
            self.peer.stop()
        self.disconnect()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self):
        with open(os.path.join(self.directory, "log"), errors="replace") as log:
            return log.read()[-2000:].strip()

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(self.socket_path)
        self.connection = connection

    def disconnect(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _receive(self, count):
        data = b""
        while len(data) < count:
            try:
                part = self.connection.recv(count - len(data))
            except OSError as error:
                raise Died(f"{self.name}: {error}") from None
            if not part:
                raise Died(f"{self.name} closed the connection")
            data += part
        return data

    def raw(self, data):
        """Sends a command as it is: the response code, and what follows the response's header."""
        if self.connection is None:
            self.connect()
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise Died(f"{self.name}: {error}") from None
        header = self._receive(10)
        size, code = struct.unpack(">II", header[2:])
        return code, self._receive(size - 10)

    def control(self, message, body=b"", size=4):
        """A message of swtpm's control channel, of which our simulator knows these: the answer, of which the first four bytes are a code."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(os.path.join(self.directory, "control.sock"))
            control.sendall(u32(message) + body)
            return control.recv(size)

    def lose_power(self):
        """`_TPM_Init`: the next command must be Startup."""
        if self.control(2, u32(0)) != b"\0\0\0\0":
            raise Died(f"{self.name} does not lose its power")

    def locality(self, number):
        """Of the commands from now on."""
        self.control(5, bytes([number]))

    def measure(self, data):
        """`_TPM_Hash_Start`, `_TPM_Hash_Data`, `_TPM_Hash_End`."""
        return self.control(6), self.control(7, u32(len(data)) + data), self.control(8)

    def run(self, name, handles=(), parameters=b"", passwords=None):
        return self.raw(command(name, handles, parameters, passwords))

    def handles(self, first):
        """The handles from `first` on of the same type."""
        code, body = self.run("GetCapability", (), u32(1) + u32(first) + u32(200))
        if code != 0:
            return []
        count = struct.unpack(">I", body[5:9])[0]
        return list(struct.unpack(f">{count}I", body[9:9 + 4 * count]))

    def tpm_property(self, which):
        """The value of one TPM property."""
        _, body = self.run("GetCapability", (), u32(6) + u32(which) + u32(1))
        return struct.unpack(">I", body[13:17])[0]

    def settle(self):
        """No object and no session stays loaded, and wrong authorizations are forgotten where that needs no password."""
        if not self.tpm_property(0x200) & 4:  # TPM_PT_PERMANENT, lockoutAuthSet
            self.run("DictionaryAttackLockReset", (LOCKOUT,), passwords=[b""])
        for first in (0x80000000, 0x02000000, 0x03000000):
            for handle in self.handles(first):
                self.run("FlushContext", (), u32(handle))


def both(directory, simulator):
    """swtpm and ours, in this order, not started yet."""
    def below(name):
        return os.path.join(directory, name)

    swtpm = ["swtpm", "socket", "--tpm2", "--tpmstate", "dir={dir}/state", "--server", "type=unixio,path={socket}",
             "--ctrl", "type=unixio,path={dir}/control.sock", "--flags", "not-need-init,startup-clear"]
    ours = [simulator, "{socket}", "{dir}/control.sock"]
    tpms = [Tpm("swtpm", below("swtpm"), swtpm), Tpm("ours", below("ours"), ours)]
    for tpm in tpms:
        tpm.peer = Tpm(f"the peer of {tpm.name}", below(f"{tpm.name}-peer"), ours)
    return tpms
