"""A worker of a pool that is forked instead of started: `python -I -S forked_worker.py SOCKET ARGUMENTS`.

The process asks `flink.forking.ForkedWorkers` for a worker, and lives as long as that worker does; if it dies first,
the worker is ended. It imports only what Python itself has, so it starts at once.
"""

import json
import os
import socket
import sys


def main() -> None:
    path, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendall(json.dumps({"arguments": arguments, "environment": dict(os.environ)}).encode() + b"\n")
        code = server.recv(16)
    sys.exit(int(code or 1))


if __name__ == "__main__":
    main()
