"""The sockets of HTTP: a port, and a Unix domain socket beside it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.serve import ServeSettings
from beam_score.pipeline.serve.http1.connection import App, ClientLimits
from beam_score.pipeline.serve.http1.listener import Listener

_BACKLOG = 1024


def http_listener(application: App, sockets: Sequence[socket.socket], settings: ServeSettings) -> Listener:
    """Return what answers the connections to some sockets."""
    limits, tls = settings.limits, settings.tls
    of_clients = ClientLimits(limits.connections, limits.headers, limits.header_time, limits.body_time)
    context = None
    if tls.certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    return Listener(application, sockets, settings.drain, of_clients, context)


@contextlib.contextmanager
def listening(settings: ServeSettings) -> Iterator[list[socket.socket]]:
    """Listen while the body runs; yield the socket of the port first. Raises JobError."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_on_port(settings.host, settings.port))]
        if settings.uds is not None:
            sockets.append(stack.enter_context(_on_path(settings.uds)))
            stack.callback(_remove, settings.uds)
        yield sockets


def check_addresses(settings: ServeSettings) -> None:
    """Raise JobError if a host is not known, or if a socket's folder is not there; nothing is bound."""
    host, problems = settings.host, []
    try:
        socket.getaddrinfo(host or None, 0, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        problems.append(f"serve.host: {host}: {getattr(error, 'strerror', None) or error}")
    for key in ("admin", "uds", "grpc_uds"):
        path = getattr(settings, key)
        if path is not None and not (folder := Path(path).absolute().parent).is_dir():
            problems.append(f"serve.{key}: there is no folder {folder}")
    if problems:
        raise JobError(problems)


def is_open_to_others(settings: ServeSettings) -> bool:
    """Return whether other machines may reach a port that asks for neither a certificate nor a token."""
    if settings.token.file or settings.token.env or settings.tls.client_ca:
        return False
    try:
        return not ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        return settings.host != "localhost"


def _on_port(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise JobError([f"serve.host: {host}: {error.strerror}"]) from None
        remedy = "choose another, or 0 for any that is free"
        raise JobError([f"serve.port: {host}:{port}: {error.strerror}; {remedy}"]) from None


def _on_path(path: str) -> socket.socket:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)  # of a server that was killed
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(path)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise JobError([f"serve.uds: {path}: {error.strerror or error}"]) from None
    return made


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
