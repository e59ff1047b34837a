"""A certificate authority of the tests' own."""

import ssl
from pathlib import Path

import trustme


class Certificates:
    """A server certificate for 127.0.0.1, and a client that trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(folder / "cert.pem", append=True)
        self.options = {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)
