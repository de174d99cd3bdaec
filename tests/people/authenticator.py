"""A software authenticator at the level of the protocol (WebAuthn Level 2 §6), as a browser would hand it on."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Authenticator:
    """One passkey: ES256, attestation ``none``."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = secrets.token_bytes(32)
        self.counter = 0

    def _client(self, kind: str, challenge: str, origin: str | None) -> bytes:
        text = {"type": kind, "challenge": challenge, "origin": origin or self.origin, "crossOrigin": False}
        return json.dumps(text).encode()

    def _data(self, host: str, flags: int) -> bytes:
        self.counter += 1
        return hashlib.sha256(host.encode()).digest() + bytes([flags]) + self.counter.to_bytes(4, "big")

    def create(self, options: dict[str, Any], origin: str | None = None) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        data = self._data(options["rp"]["id"], 0x45) + bytes(16) + len(self.id).to_bytes(2, "big") + self.id
        data += cbor2.dumps(public)
        made = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"], origin)
        response = {"clientDataJSON": encode(client), "attestationObject": encode(made), "transports": ["usb"]}
        return {"id": encode(self.id), "rawId": encode(self.id), "type": "public-key", "response": response}

    def get(self, options: dict[str, Any], origin: str | None = None) -> dict[str, Any]:
        client = self._client("webauthn.get", options["challenge"], origin)
        data = self._data(options["rpId"], 0x05)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": encode(client),
            "authenticatorData": encode(data),
            "signature": encode(signature),
            "userHandle": None,
        }
        return {"id": encode(self.id), "rawId": encode(self.id), "type": "public-key", "response": response}
