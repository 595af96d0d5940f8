#!/usr/bin/env python3
"""Writes the test vectors next to it from docs/format.md alone; shares no code with the vault.

Needs the `cryptography` package, version 44 or later. The line `expect` says what becomes of a
vector; every other value is hex.
"""

import hashlib
import hmac
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

HERE = pathlib.Path(__file__).parent
STORE_ID = bytes(range(0x10, 0x20))
ROOT = bytes(range(0x20, 0x40))


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(key, info, length):
    output, block = b"", b""
    for number in range(1, 256):
        if len(output) >= length:
            break
        block = mac(key, block + info + bytes([number]))
        output += block
    return output[:length]


def seal(key, salt, place, message):
    bound = salt + struct.pack(">I", len(message)) + place
    commitment = expand(key, b"mcpv.commit.v1" + bound, 32)
    derived = expand(key, b"mcpv.key.v1" + bound, 44)
    sealed = ChaCha20Poly1305(derived[:32]).encrypt(derived[32:], message, place)
    return commitment, sealed[:-16], sealed[-16:]


def header():
    passphrase = "correct horse battery staple"
    salt = bytes(range(0x40, 0x50))
    parameters = struct.pack(">BBHIII", 1, 1, 0, 8, 1, 1) + salt + struct.pack(">Q", 1_795_305_600)
    kek = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8).derive(passphrase.encode())
    commitment, wrapped, tag = seal(kek, salt, b"mcpv.slot.v1\0" + STORE_ID + parameters, ROOT)
    slot = parameters + commitment + wrapped + tag
    head = b"MVHD" + struct.pack(">BBQ", 1, 1, 1) + STORE_ID + struct.pack(">H", len(slot)) + slot
    file = head + mac(expand(ROOT, b"mcpv.header.v1", 32), head)
    return {"passphrase": passphrase.encode(), "salt": salt, "store_id": STORE_ID, "root_key": ROOT, "kek": kek, "header": file}


def keyring():
    def entry(uuid, handle, *terms):
        packed = b"".join(struct.pack(">IB", number, state) + key for number, state, key in terms)
        return uuid + handle + struct.pack(">I", len(terms)) + packed

    content = struct.pack(">I", 2)
    content += entry(bytes(16), bytes(16), (1, 1, b"\x51" * 32))
    content += entry(b"\x52" * 16, b"\x53" * 16, (1, 2, b"\x54" * 32), (2, 1, b"\x55" * 32))
    content += struct.pack(">II", 0, 0)
    salt = bytes(range(0x60, 0x80))
    head = b"MVKR" + struct.pack(">BQ", 1, 7) + STORE_ID
    key = expand(ROOT, b"mcpv.keyring.v1", 32)
    commitment, sealed, tag = seal(key, salt, b"mcpv.keyring.v1\0" + head, content)
    file = head + salt + commitment + struct.pack(">I", len(sealed)) + sealed + tag
    return {"root_key": ROOT, "store_id": STORE_ID, "salt": salt, "content": content, "keyring": file}


def envelope():
    tenant_key, uuid, handle = b"\x55" * 32, b"\x52" * 16, b"\x53" * 16
    term, field, version, kind = 2, 0x0002, 3, 3
    key = handle + struct.pack(">HQ", field, version)
    payload = b"p4ssw0rd of a golden vector"
    salt = bytes(range(0x80, 0xA0))
    padded = struct.pack(">I", len(payload)) + payload
    padded += bytes(-len(padded) % 256)
    head = b"MV" + struct.pack(">BBII", 1, 1, term, len(padded))
    place = head + b"mcpv.rec.v1\0" + STORE_ID + struct.pack(">B", kind) + uuid
    place += struct.pack(">HQH", field, version, len(key)) + key
    commitment, sealed, tag = seal(tenant_key, salt, place, padded)
    file = head + salt + commitment + sealed + tag
    return {"tenant_key": tenant_key, "store_key": key, "salt": salt, "payload": payload, "envelope": file}


def header_2():
    """One slot of each kind; the keyring's key is being changed."""
    slots = {
        "passphrase": (1, 0, struct.pack(">III", 8, 1, 1)),
        "key_file": (2, 1, b""),
        "command": (3, 3, struct.pack(">H", 5) + b"blob!"),
        "shares": (4, 4, bytes([2, 3])),
    }
    vector = {"store_id": STORE_ID, "root_key": ROOT}
    head = b"MVHD" + struct.pack(">BBQ", 2, len(slots), 9) + STORE_ID + struct.pack(">H", 6)
    for number, (name, (kind, slot_id, opening)) in enumerate(slots.items()):
        salt = bytes([0xA0 + number]) * 16
        parameters = struct.pack(">BBH", kind, 1, slot_id) + opening + salt + struct.pack(">Q", 1_795_305_600 + number)
        kek = bytes([0xB0 + number]) * 32
        if name == "passphrase":
            passphrase = b"correct horse battery staple"
            kek = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8).derive(passphrase)
            vector["passphrase"] = passphrase
        commitment, wrapped, tag = seal(kek, salt, b"mcpv.slot.v1\0" + STORE_ID + parameters, ROOT)
        slot = parameters + commitment + wrapped + tag
        head += struct.pack(">H", len(slot)) + slot
        vector["kek_" + name] = kek
    wrapping = expand(ROOT, b"mcpv.headerkeys.v1", 32)
    keys = {"keyring_key": 1, "previous_keyring_key": 2, "tenant_seal_key": 3}
    head += bytes([len(keys)])
    for name, purpose in keys.items():
        key, salt = bytes([0xC0 + purpose]) * 32, bytes([0xD0 + purpose]) * 32
        place = b"mcpv.headerkey.v1\0" + STORE_ID + bytes([purpose])
        commitment, wrapped, tag = seal(wrapping, salt, place, key)
        head += bytes([purpose]) + salt + commitment + wrapped + tag
        vector[name] = key
    vector["header"] = head + mac(expand(ROOT, b"mcpv.header.v1", 32), head)
    return vector


def keyring_2():
    """The system, a tenant that moves, a sealed tenant, a tombstone."""
    return keyring_of(2)


def keyring_3():
    """The same with an integrity key, and with what backups are sealed with."""
    return keyring_of(3)


def keyring_4():
    """The same with a digest of the id of each tenant."""
    return keyring_of(4)


def keyring_of(version):

    def terms(*all_terms):
        return struct.pack(">I", len(all_terms)) + b"".join(
            struct.pack(">IB", number, state) + key for number, state, key in all_terms
        )

    tenant_seal_key = b"\xc3" * 32
    sealed_uuid, sealed_handle, sealed_id = b"\x57" * 16, b"\x58" * 16, b"sealed01"
    sealed_salt = bytes(range(0xA0, 0xC0))
    place = b"mcpv.tenantseal.v1\0" + STORE_ID + sealed_uuid + sealed_handle
    commitment, ciphertext, tag = seal(tenant_seal_key, sealed_salt, place, terms((4, 1, b"\x59" * 32)))

    content = b"\x41" * 32 + b"\x42" * 32 + b"\x43" * 32 + b"\x44" * 32
    if version >= 3:
        content += b"\x46" * 32
    content += b"\x01" + b"\x45" * 32
    content += struct.pack(">I", 2)
    names = [b"", b""]
    if version >= 4:
        names = [bytes(16), hmac.digest(b"\x42" * 32, b"x\0moving01", "sha256")[:16]]
    content += bytes(16) + bytes(16) + names[0] + b"\x00" + terms((1, 1, b"\x51" * 32))
    content += b"\x52" * 16 + b"\x53" * 16 + names[1] + b"\x01" + b"\x56" * 16
    content += terms((1, 2, b"\x54" * 32), (2, 1, b"\x55" * 32))
    content += struct.pack(">I", 1) + sealed_uuid + sealed_handle + struct.pack(">I", len(sealed_id)) + sealed_id
    content += sealed_salt + commitment + struct.pack(">I", len(ciphertext)) + ciphertext + tag
    content += struct.pack(">I", 1) + b"\x61" * 16 + b"\x62" * 16 + struct.pack(">IQ", 3, 1_795_305_600)
    if version >= 3:
        content += b"\x01" + struct.pack(">I", 19) + b"a header of backups" + b"\x47" * 32
    salt = bytes(range(0x60, 0x80))
    head = b"MVKR" + struct.pack(">BQ", version, 8) + STORE_ID
    key = b"\xc1" * 32
    commitment, sealed, tag = seal(key, salt, b"mcpv.keyring.v1\0" + head, content)
    file = head + salt + commitment + struct.pack(">I", len(sealed)) + sealed + tag
    return {
        "store_id": STORE_ID, "keyring_key": key, "tenant_seal_key": tenant_seal_key,
        "salt": salt, "content": content, "keyring": file,
    }


def poly1305_key(key, nonce):
    # The cipher's 16-byte nonce is a little-endian block counter and the nonce of RFC 8439.
    block = Cipher(ChaCha20(key, bytes(4) + nonce), None).encryptor().update(bytes(32))
    r = int.from_bytes(block[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    return r, int.from_bytes(block[16:], "little")


def poly1305_blocks(place, ciphertext):
    padded = place + bytes(-len(place) % 16) + ciphertext + bytes(-len(ciphertext) % 16)
    padded += struct.pack("<QQ", len(place), len(ciphertext))
    return [int.from_bytes(padded[at : at + 16], "little") + (1 << 128) for at in range(0, len(padded), 16)]


def two_keys():
    """An envelope whose ChaCha20-Poly1305 part opens under the keys of two tenants alike.

    A tag is a polynomial of the message's blocks, so that the last block of the ciphertext can be
    chosen such that the tags under both keys agree.
    """
    prime = (1 << 130) - 5
    key = b"\x53" * 16 + struct.pack(">HQ", 0x0002, 3)
    head = b"MV" + struct.pack(">BBII", 1, 1, 2, 256)
    place = head + b"mcpv.rec.v1\0" + STORE_ID + bytes([3]) + b"\x52" * 16
    place += struct.pack(">HQH", 0x0002, 3, len(key)) + key
    tenant_keys = (b"\x55" * 32, b"\x99" * 32)
    for attempt in range(10_000):
        salt = struct.pack(">I", attempt) * 8
        bound = salt + struct.pack(">I", 256) + place
        derived = [expand(tenant_key, b"mcpv.key.v1" + bound, 44) for tenant_key in tenant_keys]
        (r1, s1), (r2, s2) = (poly1305_key(one[:32], one[32:]) for one in derived)
        # Under the first key an honest payload, whatever its last block.
        message = struct.pack(">I", 252) + b"x" * 236 + bytes(16)
        ciphertext = ChaCha20Poly1305(derived[0][:32]).encrypt(derived[0][32:], message, place)[:240]
        blocks = poly1305_blocks(place, ciphertext + bytes(16))
        free = len(blocks) - 2
        powers = [[pow(r, len(blocks) - at, prime) for at in range(len(blocks))] for r in (r1, r2)]
        fixed = [sum(b * p for at, (b, p) in enumerate(zip(blocks, ps)) if at != free) for ps in powers]
        for carry in (-1, 0, 1):
            factor = powers[0][free] - powers[1][free]
            block = (fixed[1] + s2 - fixed[0] - s1 + (carry << 128)) * pow(factor, -1, prime) % prime
            if not 1 << 128 <= block < 1 << 129:
                continue
            tags = [
                ((total + block * ps[free]) % prime + s) % (1 << 128)
                for total, ps, s in zip(fixed, powers, (s1, s2))
            ]
            if tags[0] != tags[1]:
                continue
            ciphertext += (block - (1 << 128)).to_bytes(16, "little")
            tag = tags[0].to_bytes(16, "little")
            vector = {"store_key": key, "place": place}
            for which, tenant_key in enumerate(tenant_keys):
                one = derived[which]
                ChaCha20Poly1305(one[:32]).decrypt(one[32:], ciphertext + tag, place)  # raises if it does not
                commitment = expand(tenant_key, b"mcpv.commit.v1" + bound, 32)
                vector[f"tenant_key_{which + 1}"] = tenant_key
                vector[f"cipher_key_{which + 1}"] = one
                vector[f"envelope_{which + 1}"] = head + salt + commitment + ciphertext + tag
            return vector
    raise AssertionError("no two keys found")


def bech32m(prefix, data):
    """BIP 350, as its reference implementation has it, but for 8 to 5 bits through an integer."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]

    def polymod(values):
        generator = [0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]
        remainder = 1
        for value in values:
            top = remainder >> 25
            remainder = (remainder & 0x1FFFFFF) << 5 ^ value
            for i in range(5):
                remainder ^= generator[i] if ((top >> i) & 1) else 0
        return remainder

    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    remainder = polymod(expanded + values + [0] * 6) ^ 0x2BC830A3
    values += [(remainder >> 5 * (5 - i)) & 31 for i in range(6)]
    return "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[value] for value in values)


def gf256_tables():
    """Powers of the generator 3 of GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, and logarithms."""
    powers, logarithms, value = [], {}, 1
    for exponent in range(255):
        powers.append(value)
        logarithms[value] = exponent
        value ^= value << 1
        value ^= 0x11B if value & 0x100 else 0
    return powers, logarithms


def shares():
    powers, logarithms = gf256_tables()
    secret = hashlib.sha256(b"secret").digest()
    coefficients = [bytearray(hashlib.sha256(b"coefficient %d" % number).digest()) for number in (1, 2)]
    # Zeros are as likely as any other value, in the secret too.
    coefficients[0][0] = coefficients[1][1] = coefficients[0][2] = coefficients[1][2] = 0
    secret = secret[:31] + b"\0"
    set_id = bytes(range(0xC0, 0xC8))
    threshold, count = 3, 5
    result = {"secret": secret, "set": set_id, "coefficient_1": bytes(coefficients[0]), "coefficient_2": bytes(coefficients[1])}
    for number in range(1, count + 1):
        value = bytearray(secret)
        for power, coefficient in enumerate(coefficients, 1):
            for at, byte in enumerate(coefficient):
                if byte:
                    value[at] ^= powers[(logarithms[byte] + power * logarithms[number]) % 255]
        symbols = bech32m("tenantry-share", set_id + bytes([threshold, count, number]) + value)
        groups = [symbols[at : at + 5] for at in range(0, len(symbols), 5)]
        result[f"share_{number}"] = "-".join(["tenantry-share-1", *groups]).encode()
    return result


def key_file():
    key = hashlib.sha256(b"key file").digest()
    return {"key": key, "key_file": f"tenantry-key-1:{bech32m('tenantry-key', key)}\n".encode()}


INTEGRITY = bytes(range(0x70, 0x90))
META, TENANT, TOKEN = 1, 2, 3
STORE_VERSION = 2


def integrity_mac(purpose, message):
    return mac(expand(INTEGRITY, b"mcpv." + purpose + b".v1", 32), message)


def add(numbers):
    return (sum(int.from_bytes(number, "big") for number in numbers) % (1 << 256)).to_bytes(32, "big")


def elements(pairs):
    return [
        integrity_mac(b"pair", struct.pack(">BH", tree, len(key)) + key + value) for (tree, key), value in pairs.items()
    ]


def state(pairs, salt):
    """What a manifest and a frame have of `pairs`, a dict of values by tree and key."""
    counts = [sum(1 for tree, _ in pairs if tree == wanted) for wanted in (META, TENANT, TOKEN)]
    return struct.pack(">3Q", *counts) + salt + add([*elements(pairs), integrity_mac(b"mask", salt)])


def manifest_of(number, pairs, chain, salt):
    content = b"MVMF" + struct.pack(">BIQ", 1, STORE_VERSION, number) + state(pairs, salt) + chain
    return content + integrity_mac(b"manifest", content)


def entries(changes):
    stream = b""
    for (tree, key), value in changes:
        stream += struct.pack(">BB", tree, len(key)) + key
        stream += b"\xff\xff" if value is None else struct.pack(">H", len(value)) + value
    return stream


def pairs_of(changes, manifest):
    return b"MVPR\x01" + entries(changes) + struct.pack(">BH", 0, len(manifest)) + manifest


PAIRS = {
    (META, b"header"): bytes(range(0x30)),
    (TENANT, b"\x53" * 26): b"\xe1" * 348,
    (TENANT, b"\x54" * 26): b"",
    (TOKEN, b"\x55" * 32): b"\xe3" * 92,
}


def manifest():
    salt, chain = b"\x81" * 16, b"\x82" * 32
    return {
        "integrity_key": INTEGRITY, "entries": entries(PAIRS.items()), "set": add(elements(PAIRS)),
        "salt": salt, "chain": chain, "manifest": manifest_of(258, PAIRS, chain, salt),
    }


def pairs():
    """With a pair that is replaced, one that is removed, and one that was never there."""
    changes = list(PAIRS.items())
    changes.insert(0, ((META, b"header"), b"before"))
    changes.insert(2, ((TOKEN, b"\x66" * 32), b"removed later"))
    changes += [((TOKEN, b"\x66" * 32), None), ((TENANT, b"\x67"), None)]
    of_all = manifest_of(258, PAIRS, b"\x82" * 32, b"\x81" * 16)
    return {
        "integrity_key": INTEGRITY, "entries": entries(PAIRS.items()), "manifest": of_all,
        "pairs": pairs_of(changes, of_all), "base": pairs_of(PAIRS.items(), of_all),
    }


def anchor():
    """Both slots, without the zeros that fill each up to 4 KiB."""

    def slot(number, chain):
        content = b"MVAN" + struct.pack(">BQ", 1, number) + chain
        return content + integrity_mac(b"anchor", content)

    chains = {"chain_258": b"\x83" * 32, "chain_259": b"\x84" * 32}
    return {
        "integrity_key": INTEGRITY, **chains,
        "slot_even": slot(258, chains["chain_258"]), "slot_odd": slot(259, chains["chain_259"]),
    }


def journal():
    """One segment of an empty store's first three commits."""
    commits = [
        [((META, b"header"), b"one"), ((TENANT, b"\x53" * 26), b"\xe1" * 348)],
        [((META, b"header"), b"two"), ((TOKEN, b"\x55" * 32), b"\xe3" * 92), ((TOKEN, b"\x56" * 32), b"")],
        [((TENANT, b"\x53" * 26), None)],
    ]
    salts = [bytes([0x85 + number]) * 16 for number in range(len(commits) + 1)]
    chain = b"\x84" * 32
    result = {"integrity_key": INTEGRITY, "chain": chain, "salts": b"".join(salts)}
    segment = b"MVJL" + manifest_of(0, {}, chain, salts[0])
    held = {}
    for number, changes in enumerate(commits, 1):
        for place, value in changes:
            held[place] = value
            if value is None:
                del held[place]
        content = struct.pack(">QI", number, STORE_VERSION) + state(held, salts[number]) + entries(changes)
        content = struct.pack(">I", len(content) + 32) + content
        chain = integrity_mac(b"journal", chain + content)
        segment += content + chain
    result["segment"] = segment
    result["base"] = pairs_of(held.items(), manifest_of(len(commits), held, chain, b"\x89" * 16))
    return result


def payloads():
    """What envelopes hold that is more than bare bytes, each version of each kind."""

    def text(value):
        return struct.pack(">I", len(value)) + value

    def time(seconds, nanoseconds=0):
        return struct.pack(">qi", seconds, nanoseconds)

    def some(value):
        return b"\1" + value

    none = b"\0"
    made, later, last = time(1_795_305_600, 5), time(1_795_305_660), time(1_795_392_000)
    field = struct.pack(">HQH", 0x0101, 2, 1) + text(b"api_keys.openai") + later + b"\xf1\xf2\xf3\xf4"
    config_field = struct.pack(">HQH", 0x1000, 3, 2) + text(b"config") + last + bytes(4)
    directory = b"\1" + text(b"Tenant_001") + b"\x52" * 16 + b"\1" + made + last + struct.pack(">Q", 3)
    directory += struct.pack(">I", 2) + field + config_field

    target = text(b"db.example.com") + struct.pack(">H", 5432) + text(b"shop") + text(b"reader")
    target += text(b"verify-full") + text(b"public")
    relation = some(text(b"sales")) + text(b"orders")
    access = text(b"read_only") + some(struct.pack(">I", 1) + relation)
    access += struct.pack(">I", 1) + none + text(b"customers") + text(b"password_hash")
    open_access = text(b"read_write") + none + struct.pack(">I", 0)
    limits = struct.pack(">QIII", 30, 500_000_000, 1000, 4194304)
    quotas = some(struct.pack(">Q", 1000)) + none + some(struct.pack(">I", 5))
    no_quotas = none * 3
    features = struct.pack(">I", 1) + text(b"premium_support") + b"\1"
    no_features = struct.pack(">I", 0)

    scopes = struct.pack(">I", 2) + text(b"list") + text(b"query")
    token = text(b"tok_0123456789ab") + text(b"Tenant_001") + scopes + made
    first = text(b"op_0123456789ab") + b"\xd1" * 32 + text(b"operator") + made + none
    second = text(b"op_ba9876543210") + b"\xd2" * 32 + text(b"auditor") + later + some(last)
    backup = b"\1" + b"\xb1" * 16 + text(b"/mnt/one.backup") + made + struct.pack(">QQQ", 258, 51, 90210)
    return {
        "directory": directory,
        "config_1_postgres": b"\1\1" + target + access + limits + quotas + features,
        "config_1_variable": b"\1\3" + target + text(b"app.tenant") + access + limits + quotas + features,
        "config_1_sqlite": b"\1\2" + text(b"shop.db") + open_access + limits + no_quotas + no_features,
        "config_2_sqlite": b"\2\2" + text(b"shop.db") + open_access + limits + no_quotas
        + struct.pack(">Q", 0) + no_features,
        "token_1": b"\1" + token + none,
        "token_1_expiry": b"\1" + token + some(last),
        "token_2": b"\2" + token + some(last) + later,
        "operators": b"\1" + struct.pack(">I", 2) + first + second,
        "backup": backup + none + b"\0",
        "backup_tried": backup + some(last) + b"\1",
    }


def certificate():
    """Of a tenant with three terms that one backup holds."""
    seed = b"\x07" * 32
    key = Ed25519PrivateKey.from_private_bytes(seed)
    signer = key.public_key().public_bytes_raw().hex()
    signed = (
        f"tenantry deletion certificate 1\nstore {STORE_ID.hex()}\ntenant {'53' * 16}\n"
        "terms of its key destroyed: 1 to 3\nkeys destroyed 2026-11-22T00:00:00Z\n"
        "store rewritten 2026-11-22T00:00:01Z\nlevels S0 S1\nbackups that still hold it: one.backup\n"
        f"signed by {signer}\n"
    ).encode()
    text = signed + f"signature {key.sign(signed).hex()}\n".encode()
    return {"seed": seed, "store_id": STORE_ID, "certificate": text}


EXPECT = {
    header: "opens with the passphrase; the next header is version 2",
    keyring: "opens with what the root key derives; the next keyring is version 4",
    envelope: "opens under the tenant key at the store key, and nowhere else",
    header_2: "opens with each of the four keys and with the passphrase",
    keyring_2: "opens under the keyring key, without an integrity key; the next keyring is version 4",
    keyring_3: "opens under the keyring key, without names; the next keyring is version 4",
    keyring_4: "opens under the keyring key; the sealed tenant under the tenant seal key; the other one is Moving01",
    two_keys: "envelope_1 opens under tenant_key_1; envelope_1 under tenant_key_2 and envelope_2 under tenant_key_1 "
    "are refused: commitment; envelope_2 under tenant_key_2 is refused: payload",
    shares: "any three shares give the secret; two are refused: too few",
    key_file: "reads as the key",
    manifest: "is that of commit 258 and of the pairs in entries, whose set hash is set",
    pairs: "both read as the pairs in entries, and the manifest",
    anchor: "says commit 259",
    journal: "three commits; base is what they make",
    payloads: "each is read, and written again byte for byte",
    certificate: "verifies, and is what the seed signs",
}

for make, expect in EXPECT.items():
    lines = [f"expect = {expect}\n"] + [f"{name} = {value.hex()}\n" for name, value in make().items()]
    (HERE / f"{make.__name__}.txt").write_text("".join(lines))
