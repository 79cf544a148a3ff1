"""Send one HTTP request over a socket, exactly as written: clients would correct or refuse hostile ones."""

import socket


def raw_request(
    port: int, method: str, target: str, *headers: str, host: str | None = "127.0.0.1", body: str = ""
) -> bytes:
    """Return the whole response. `target` is written as it is. `host` None: no Host header."""
    lines = [f"{method} {target} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
    if body:
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    data = "\r\n".join([*lines, "Connection: close", "", body]).encode("latin-1")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def status_of(response: bytes) -> int:
    """Return the status of a response."""
    return int(response.split(b" ", 2)[1])
