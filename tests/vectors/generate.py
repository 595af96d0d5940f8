#!/usr/bin/env python3
"""Writes the test vectors next to it from docs/format.md alone; shares no code with the vault.

Needs the `cryptography` package, version 44 or later. Every value in the vectors is hex, but for
text in quotes and plain numbers in the inputs below.
"""

import hashlib
import hmac
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
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


for make in (header, keyring, envelope):
    lines = [f"{name} = {value.hex()}\n" for name, value in make().items()]
    (HERE / f"{make.__name__}.txt").write_text("".join(lines))
