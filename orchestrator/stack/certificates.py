"""The certificates by which the parts of the embedded store know one another.

An authority made for one stack signs one certificate for 127.0.0.1, which every part uses as
server and as client: whoever holds no file of this stack is turned away.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cluster.private_files import write_private
from orchestrator.errors import StackError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.x509 import Certificate, CertificateBuilder

AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "node.crt", "node.key"
_AUTHORITY_NAME, _NODE_NAME = "ddpmctl embedded stack", "ddpmctl node"
_VALID_FOR = timedelta(days=3650)
_CLOCK_SLACK = timedelta(days=1)


def write_certificates(folder: Path) -> None:
    """Make an authority and one node certificate in a folder; the authority's key is not kept.

    Raises:
        StackError: The package `cryptography` is missing, or a file cannot be written.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise StackError(
            "the embedded store needs the package `cryptography`: pip install 'ddpmctl[embedded]'"
        ) from error
    authority_key = ec.generate_private_key(ec.SECP256R1())
    node_key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    key = node_key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(folder / AUTHORITY_FILE, _authority(authority_key).public_bytes(pem))
    write_private(folder / CERTIFICATE_FILE, _node(node_key, authority_key).public_bytes(pem))
    write_private(folder / KEY_FILE, key)


def _authority(key: "EllipticCurvePrivateKey") -> "Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return (
        _unsigned(key.public_key(), _AUTHORITY_NAME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _node(
    key: "EllipticCurvePrivateKey", authority_key: "EllipticCurvePrivateKey"
) -> "Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _unsigned(key.public_key(), _NODE_NAME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _unsigned(public_key: "EllipticCurvePublicKey", name: str) -> "CertificateBuilder":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _AUTHORITY_NAME)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + _VALID_FOR)
    )
