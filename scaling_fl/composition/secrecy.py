"""What follows from the secret of a job with noise: the noise, the draws, and keyed hashes.

Whoever has the secret can repeat the noise and the draws, and nobody else can. The keyed hashes in
a checkpoint let a resume tell another secret and other training data. To others they are worth one
guess of the secret for one run of scrypt, and nothing about the data without the secret.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from scaling_fl.composition.fingerprint import OWNERS, SEAL
from scaling_fl.config import NOISE_SECRET, Config
from scaling_fl.core.errors import InputError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.seeding import Randomness, from_key, from_seed
from scaling_fl.runtime.record.begun import newest_identity
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.places import JobPlaces

EARLIER_PROMISES = (
    "an earlier version began this job: its checkpoints hold plain hashes of the training data, "
    "and jobs with the same secret and seed share its draws, so their epsilons do not add up"
)
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 1 << 26, "dklen": 32}  # 32 MiB, about 0.1 s
_SALT_BYTES = 16


@dataclass(frozen=True)
class Seal:
    """Holds checkpoints against the secret and the data of their job, and shows neither.

    The salt is random, so the hashes of two jobs cannot be compared, either. A guess of the secret
    is as dear as scrypt makes it (RFC 7914).
    """

    salt: str
    key: bytes

    @classmethod
    def of(cls, secret: str, salt: str) -> "Seal":
        return cls(salt, hashlib.scrypt(secret.encode(), salt=bytes.fromhex(salt), **_SCRYPT))

    @property
    def record(self) -> dict[str, str]:
        """What a checkpoint keeps, to tell another secret from this one."""
        return {"salt": self.salt, "check": self.tag("secret")}

    def tag(self, *texts: str) -> str:
        """Hash texts with the key: 128 bits that are equal for equal texts of this job alone."""
        return hmac.digest(self.key, json.dumps(texts).encode(), "sha256")[:16].hex()

    def over(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fingerprint that a job keeps, with keyed hashes of its training data."""
        data = [self.tag("data", key) for key in kept[OWNERS]["data"]]
        return {**kept, OWNERS: {**kept[OWNERS], "data": data}, SEAL: self.record}


def read_begun(config: Config, job: JobPlaces | None, exchange: Exchange) -> dict[str, Any] | None:
    """Return the fingerprint that a job with noise has kept so far, on all workers; None: new."""
    if not config.privacy.is_noisy:
        return None
    mine: list[dict[str, Any]] = []
    if job is not None and exchange.rank == 0:
        mine = [{"kept": newest_identity(open_storage(job["checkpoints"]))}]
    kept: dict[str, Any] | None = next(iter(exchange.gather(mine)), {}).get("kept")
    return kept


def make_seal(begun: Mapping[str, Any] | None, exchange: Exchange) -> Seal | None:
    """Make the seal of a job that begins, or check that of one that goes on.

    Returns None for a job of an earlier version. It has no seal: its checkpoints hold plain hashes
    of the training data, and its draws follow from the secret and the configuration's seed alone.
    It goes on like that.

    Raises:
        InputError: the job was begun with another secret.
    """
    secret = os.environ[NOISE_SECRET]
    if begun is None:
        mine = [{"salt": secrets.token_hex(_SALT_BYTES)}] if exchange.rank == 0 else []
        return Seal.of(secret, exchange.gather(mine)[0]["salt"])
    if SEAL not in begun:
        return None
    seal = Seal.of(secret, begun[SEAL]["salt"])
    if not hmac.compare_digest(seal.record["check"], begun[SEAL]["check"]):
        raise InputError(
            f"{NOISE_SECRET} must be the secret that the job was begun with, got another one; "
            "restore it in .env, or start anew with another job_name or checkpoints_dir."
        )
    return seal


@dataclass(frozen=True)
class Secrecy:
    """The noise and the draws of a job; they have a key each, so neither tells of the other."""

    noise: Randomness
    draws: Randomness


def make_secrecy(
    config: Config,
    seal: Seal | None,
    facts: list[Any],
    exchange: Exchange,
    device: torch.device,
) -> Secrecy:
    """Derive noise and draws from the secret and from ``facts``: all that decides what is computed.

    Two jobs that differ in anything must have different noise, or the difference of their sums
    would have none, and different draws, or their epsilons would not add up. Two equal jobs have
    the same noise, the same draws and the same states, which cost no more than one. A GPU rounds
    differently from run to run, so there the salt makes any two jobs differ.

    Raises:
        InputError: two workers would add different noise.
    """
    secret = os.environ[NOISE_SECRET].encode()
    nonce = seal.salt if seal and device.type == "cuda" else ""
    text = json.dumps([*facts, _machines(exchange, device), nonce], sort_keys=True)
    root = hmac.digest(secret, text.encode(), "sha256")
    _check_same(root, exchange)
    noise, draws = (hmac.digest(root, purpose, "sha256") for purpose in (b"noise", b"draws"))
    if seal is None:
        return Secrecy(from_key(noise), from_seed(_earlier_draw_seed(config)))
    return Secrecy(from_key(noise), from_key(draws))


def _machines(exchange: Exchange, device: torch.device) -> list[str]:
    """Name the kinds of processors that round for this job, and how."""
    mine = {
        "device": device.type,
        "num_threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    return sorted({json.dumps(row, sort_keys=True) for row in exchange.gather([mine])})


def _check_same(root: bytes, exchange: Exchange) -> None:
    proof = hashlib.sha256(root).hexdigest()
    if len({row["noise"] for row in exchange.gather([{"noise": proof}])}) > 1:
        raise InputError(
            f"{NOISE_SECRET} and the weights of model must be the same on all machines, got "
            "different ones; copy those of the first machine to all others."
        )


def _earlier_draw_seed(config: Config) -> int:
    """Derive the seed of the draws as versions without seals did."""
    secret = os.environ[NOISE_SECRET]
    digest = hashlib.sha256(json.dumps([secret, "draws", config.seed]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
