"""A certificate authority for one test: certificates for servers and clients on this machine."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """ca, server_cert, server_key, client_cert and client_key are paths of PEM files. The server's
    is for this machine, or for `name` alone."""

    def __init__(self, directory, name=None):
        self.directory = str(directory)
        os.makedirs(self.directory, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(
            NameOID.COMMON_NAME, "test authority " + os.urandom(4).hex())])
        authority = self._build(self._name, self._key.public_key(), [
            x509.BasicConstraints(ca=True, path_length=None)])
        self.ca = self._write("ca.crt", authority.public_bytes(serialization.Encoding.PEM))
        self.server_cert, self.server_key = self._issue("server", [
            x509.SubjectAlternativeName([x509.DNSName(name)] if name else [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ])])
        self.client_cert, self.client_key = self._issue("client", [])

    def issue(self, name, names):
        """A further certificate, for servers of these names: (certificate, key)."""
        return self._issue(name, [x509.SubjectAlternativeName(
            [x509.DNSName(one) for one in names])])

    def _build(self, name, public_key, extensions):
        now = datetime.datetime.utcnow()
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self._name)
            .public_key(public_key).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1)))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _issue(self, name, extensions):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key(),
            extensions)
        return (
            self._write(name + ".crt", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(name + ".key", key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption())))

    def _write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(content)
        return path
