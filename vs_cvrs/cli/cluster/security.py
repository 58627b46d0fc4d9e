"""The certificate by which a cluster's machines know each other, and addresses without one."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from distributed import Security

from vs_cvrs.cli.running import CliError

__all__ = ["is_loopback", "make_certificate", "security_of"]

_CERTIFICATE, _KEY = "certificate.pem", "key.pem"
_DAYS = 365


def security_of(folder: Path | None) -> Security:
    """Dask's security with the certificate in ``folder``; None: none.

    Raises:
        CliError: there is no certificate in the folder, it has expired, or the key is not its own.
    """
    if folder is None:
        return Security()
    certificate, key = folder / _CERTIFICATE, folder / _KEY
    for file in (certificate, key):
        if not file.is_file():
            raise CliError(
                f"--tls: there is no {file}; vs-cvrs cluster start --tls FOLDER makes it, and the "
                "folder is copied to each machine"
            )
    _check_dates(certificate)
    _check_key(certificate, key)
    # One certificate for all: whoever holds its key is of the cluster, and nobody else is.
    pair = {
        f"tls_{role}_{part}": str(file)
        for role in ("scheduler", "worker", "client")
        for part, file in (("cert", certificate), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=str(certificate), **pair)


def make_certificate(folder: Path) -> bool:
    """Make a certificate that signs itself, where the folder has none; whether it was made."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    certificate, key_file = folder / _CERTIFICATE, folder / _KEY
    if certificate.exists() and key_file.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vs-cvrs cluster")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The machines' clocks may differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return True


def _check_dates(certificate: Path) -> None:
    from cryptography import x509

    try:
        end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError as error:
        raise CliError(f"--tls: {certificate} is no certificate") from error
    if end < datetime.datetime.now(datetime.UTC):
        raise CliError(
            f"--tls: {certificate} was valid until {end:%Y-%m-%d}; remove it and its key, and "
            "vs-cvrs cluster start --tls FOLDER makes new ones"
        )


def _check_key(certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With no password given, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise CliError(f"--tls: {key} is not the key of {certificate}") from error
    except OSError as error:
        raise CliError(f"--tls: {key} cannot be read: {error.strerror or error}") from error


def is_loopback(address: str) -> bool:
    """Whether an address like tcp://HOST:PORT, or a host, is this machine's own and only that."""
    host = urlsplit(address).hostname if "://" in address else address
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(place[4][0])).is_loopback for place in found)
