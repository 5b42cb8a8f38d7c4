"""Checks of a request before it is read: a bearer token; and the files of TLS."""

from __future__ import annotations

import hmac
import os
import ssl
from pathlib import Path

import grpc

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.serve import Tls, Token
from beam_score.pipeline.serve.front.requests import Refusal

_SCHEME = b"bearer "


class Guard:
    """Admits requests with the token.

    Args:
      token: the secret.
    """

    def __init__(self, token: bytes):
        self._token = token

    def check(self, authorization: bytes) -> None:
        """Raise Refusal unless the value of the header Authorization has the token."""
        given = authorization[len(_SCHEME) :].strip()
        if not (authorization[: len(_SCHEME)].lower() == _SCHEME and hmac.compare_digest(given, self._token)):
            raise Refusal(401, "the request has no valid bearer token", ((b"www-authenticate", b"Bearer"),))


def guard_of(token: Token) -> Guard | None:
    """Read the token; None if there is none. Raises JobError."""
    if token.env is None and token.file is None:
        return None
    if token.env is not None:
        secret = os.environ.pop(token.env, "")  # processes that are started do not inherit it
        source = f"serve.token.env: the environment variable {token.env}"
    else:
        source = f"serve.token.file: {token.file}"
        try:
            secret = Path(str(token.file)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JobError([f"{source}: {getattr(error, 'strerror', None) or error}"]) from None
    if not (secret := secret.strip()) or not secret.isascii() or not secret.isprintable():
        raise JobError([f"{source} has no token: expected a line of printable ASCII"])
    return Guard(secret.encode())


def check_tls(tls: Tls) -> None:
    """Raise JobError if the files of TLS cannot be used."""
    if tls.certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except OSError as error:  # also of ssl
        files = ", ".join(filter(None, (tls.certificate, tls.key, tls.client_ca)))
        raise JobError([f"serve.tls: {files}: {error.strerror or error}"]) from None


def grpc_credentials(tls: Tls) -> grpc.ServerCredentials | None:
    """Return the files of TLS as gRPC takes them; None without TLS."""
    if tls.certificate is None or tls.key is None:
        return None
    authority = None if tls.client_ca is None else Path(tls.client_ca).read_bytes()
    pair = Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes()
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
