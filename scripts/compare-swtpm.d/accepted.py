# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What may differ between swtpm (0.7.1 with libtpms 0.9.2, as Debian 12 has them) and our engine, and why.

An entry for steps that nothing needs any more is named at the end of a run; remove it then.
"""

import re
from dataclasses import dataclass


@dataclass(eq=False)
class Step:
    """A step matched by `step`: each differing line (- swtpm, + ours) matches one of `lines` from its start to its end."""

    step: str
    lines: list
    reason: str
    used: bool = False

    def others(self, difference):
        """The lines that are not accepted; all of another step."""
        if not re.fullmatch(self.step, difference.step):
            return difference.lines
        return [line for line in difference.lines if not any(re.fullmatch(p, line) for p in self.lines)]


@dataclass(eq=False)
class Raw:
    """Commands whose name is matched by `name`; `theirs` and `ours` match the response codes from start to end."""

    name: str
    theirs: str
    ours: str
    reason: str
    used: bool = False

    def fits(self, name, theirs, ours):
        return bool(re.fullmatch(self.name, name) and re.fullmatch(self.theirs, theirs)
                    and re.fullmatch(self.ours, ours))


def error(swtpm, ours, statuses=None):
    """Lines of a step that ends with other codes, and with other statuses of the tool: (swtpm's, ours)."""
    lines = [rf"- code {c}" for c in swtpm] + [rf"\+ code {c}" for c in ours]
    if statuses:
        lines += [rf"- status {statuses[0]}", rf"\+ status {statuses[1]}"]
    return lines


NOT_THERE = r"0x0*143"

STEPS = [
    Step("tpm2_getcap properties-fixed", [
        r"[-+] TPM2_PT_(REVISION|DAY_OF_YEAR|YEAR|MANUFACTURER|VENDOR_STRING_[12]|FIRMWARE_VERSION_[12]"
        r"|PS_FAMILY_INDICATOR|PS_REVISION|PS_DAY_OF_YEAR|PS_YEAR|(TOTAL|LIBRARY)_COMMANDS|HR_PERSISTENT_MIN|MEMORY|CLOCK_UPDATE|ORDERLY_COUNT"
        r"|MAX_(OBJECT|SESSION)_CONTEXT)\.(raw|value): .*"],
         "who made it, which specification it follows, how much of it there is"),
    Step("tpm2_getcap properties-variable(?! .*HR_NV).*", [
        r"[-+] TPM2_PT_(HR_PERSISTENT_AVAIL|NV_COUNTERS_AVAIL|LOADED_CURVES|MAX_AUTH_FAIL|LOCKOUT_INTERVAL"
        r"|LOCKOUT_RECOVERY): .*"],
         "how much room there is; lockout as Windows wants it"),
    Step("tpm2_getcap properties-variable .*HR_NV.*", [r"[-+] TPM2_PT_NV_COUNTERS_AVAIL: .*"],
         "how much room there is"),
    Step("tpm2_getcap algorithms", [r"\+ (sm3_256|sha3_\d+)[:.].*"], "hashes that libtpms does not have"),
    Step(r"tpm2_hash .* -g (sha3|sm3)_256 .*", [r"\+ [0-9a-f]{64}", *error([r"0x0*2c3"], [], (1, 0))],
         "hashes that libtpms does not have"),
    Step("tpm2_create(primary)? .* -G (aes|camellia)192.*", [r"\+ OK", *error([r"0x0*2c4"], [], (1, 0))], "libtpms has 128 and 256 bits"),
    Step("tpm2_getcap commands", [r"- (TPM2_CC_\w+|0x4000197)[:.].*", r"\+ TPM2_CC_Policy_AC_SendSelect[:.].*", r"\+ 0x[0-9a-f]+1(9[89a-f]|a[01])[:.].*"],
         "commands that we do not have yet, and those that came after version 1.59"),
    Step("tpm2_getcap ecc-curves", [r"- TPM2_ECC_BN_P(256|638): .*"], "there is no maintained implementation of the BN curves in Rust"),
    Step(r"(tpm2_shutdown; )?tpm2_nvread 0x15000(03|14) -C o \| xxd", [
        r"- 00000000: 0000 0000 0000 000[14] .*", r"\+ 00000000: 0000 0000 0000 000[456] .*"],
         "a new counter begins above every other (Part 3, 31.2); in swtpm above deleted ones only"),
    Step("(.*; )?tpm2_getcap handles-permanent", [r"\+ - 0x40000110"], "libtpms has no countdown timer"),
    Step("tpm2_print -t TPMS_ATTEST .*", [r"[-+] firmwareVersion: .*"], "another TPM has another version"),
    Step("tpm2_rsa(en|de)crypt .*", error([r"0x0*101"], [r"0x0*84"]),
         "libtpms 0.9 answers FAILURE for all that OpenSSL refuses; Part 3 has VALUE for padding and messages, as "
         "libtpms without OpenSSL and the TCG's reference answer"),
    Step("head -c 16 /dev/zero > no.key; .*tpm2_import .*", error([r"0x0*3(d5|da)"], [r"0x0*3df"]),
         "an inner wrapper that a wrong key opens is always INTEGRITY, so that nothing is told of what it decrypts to"),
    Step("tpm2_rsadecrypt .* ff", error([r"0x0*101"], [r"0x0*95"]),
         "the same for a ciphertext above the modulus, which is SIZE there"),
]

# Response codes as C writes them; a number in the middle digit is that of a parameter (with 0x40), handle or session.
RAW = [
    Raw("damaged .*", "0x9a|0x95", "0x144",
        "an authorization area of a wrong size: Part 1 has TPM_RC_AUTHSIZE for it, libtpms SIZE and INSUFFICIENT"),
    Raw("damaged .*", "0x84", "0x1e",
        "a tag that is none: Part 3 has TPM_RC_BAD_TAG; libtpms answers VALUE unless the number is some other structure's tag"),
    Raw("damaged (NV_DefineSpace|CreatePrimary)", "0x[12](c4|d[56])|0x2(c1|c3|e1|d2|c2)", "0x[12]da",
        "a structure whose size says more than is there is not looked into; libtpms takes it apart first"),
    Raw("damaged (CreatePrimary|StartAuthSession)", "0x0", "0x[1-5](e6|c9|d6|cc|d2|c3)",
        "curves, modes, ciphers, schemes and hashes that we do not have yet"),
    Raw("NV_DefineSpace", "0x14b", "[0-9a-f]+",
        "libtpms has 512 bytes for all orderly indices; ours take the room of the others"),
    Raw("PolicyNV of negative numbers", "success|0x126", "success|0x126",
        "signed operands are two's complements (Part 2, TPM_EO), so that -1 is more than -2; libtpms has it so since 0.10"),
    Raw("PolicyTemplate", "0x1c4", "0x151",
        "a policy with another template: CPHASH since version 1.83, VALUE in 1.59"),
    Raw("TPM_PT_LOCKOUT_COUNTER", "0x.*", "0x.*",
        "swtpm forgets with a Startup(STATE) that fails that protected things were in use, and notes their use although the command fails then"),
    Raw("LoadExternal ecc 0x10", "0x0", "0x2e7",
        "the point of a public key without a Name is looked at, too: nothing works with one that is not on its curve"),
    Raw("StartAuthSession salted", "0x0", "0x2c4", "bytes behind the point in a salt are refused"),
    Raw("ActivateCredential secret behind", "0x0", "0x2d5", "the same in the secret of a credential"),
    Raw("Import .*", "0x3(d5|da)", "0x3df",
        "an inner wrapper that a wrong key opens is always INTEGRITY, so that nothing is told of what it decrypts to"),
]


def code(value):
    """A result of raw.py as the table has it."""
    return f"{value:#x}" if isinstance(value, int) else str(value)


def of_step(difference):
    """The entry that says most about a difference, if any, and the lines of it that are not accepted."""
    entry = min(STEPS, key=lambda e: len(e.others(difference)))
    others = entry.others(difference)
    if len(others) == len(difference.lines):
        return None, others
    entry.used = True
    return entry, others


def of_raw(name, theirs, ours):
    """The entry that allows this, or None."""
    for entry in RAW:
        if entry.fits(name, code(theirs), code(ours)):
            entry.used = True
            return entry
    return None
