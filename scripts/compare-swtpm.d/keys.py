# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Key pairs from a seed: points of P-256, and primes. For tests: neither constant in time nor proven."""

# P-256 (NIST SP 800-186, 3.2.1.3): y^2 = x^3 - 3x + b over FIELD; G generates a group of ORDER.
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)

SMALL = [p for p in range(3, 2000, 2) if all(p % q for q in range(3, int(p**0.5) + 1, 2))]


def add(a, b):
    """The sum of two points; None is the point at infinity."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % FIELD == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, FIELD)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, FIELD)
    x = (slope * slope - a[0] - b[0]) % FIELD
    return x, (slope * (a[0] - x) - a[1]) % FIELD


def multiply(scalar, point):
    result = None
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def prime(random, bits):
    """A number of `bits` bits, the two highest set, that passes Miller and Rabin's test and suits the exponent 65537."""
    while True:
        n = random.getrandbits(bits) | 3 << bits - 2 | 1
        if all(n % p for p in SMALL) and n % 65537 != 1 and probably_prime(n, random):
            return n


def probably_prime(n, random):
    twos = (n - 1 & 1 - n).bit_length() - 1
    odd = n - 1 >> twos
    for _ in range(12):
        x = pow(random.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True
