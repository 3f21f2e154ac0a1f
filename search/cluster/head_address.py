"""Probes an address first: Ray takes seconds to load and would then try for half a minute."""

import os
import re
import socket

from pawtune.search.errors import UserError

PROBE_TIMEOUT_S = 3.0
# How every gRPC client begins, and the kind of the frame that every server answers with.
HTTP2_SETTINGS = 4
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])


def probe_head(address: str | None) -> str | None:
    """Fails at once where no Ray head listens at the address.

    Args:
        address: Address, as `--address` of `pawtune run` takes it.

    Returns:
        host:port, where one answers; None where only Ray can find the cluster, or will start it.

    Raises:
        UserError: Nobody is there, or somebody else.
    """
    given = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if given in (None, "", "local", "auto"):
        return None
    try:
        _call(given)
    except (OSError, ValueError) as error:
        raise no_cluster(address, error.args[-1] if error.args else error) from error
    return given


def head_here() -> str | None:
    """host:port of the head that `auto` means; None where RAY_ADDRESS says `local`.

    Ray takes any head that ran here lately, gone or not, and would ask it for minutes. To be
    called when Ray is loaded.

    Raises:
        UserError: There is none, or it does not answer.
    """
    from pawtune.search.cluster.ray_internals import address_of_auto

    try:
        found = address_of_auto()
    except ConnectionError as error:
        raise no_cluster("auto", error) from error
    if found is None:
        return None
    try:
        _call(found)
    except (OSError, ValueError) as error:
        reason = error.args[-1] if error.args else error
        raise no_cluster("auto", reason, found) from error
    return str(found)


def _call(address: str) -> None:
    if "://" in address:
        raise ValueError("searches join a cluster from inside; from outside use `pawtune submit`")
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ValueError("an address is host:port")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S) as head:
        if os.environ.get("RAY_USE_TLS") == "1":
            return
        head.sendall(HTTP2_HELLO)
        answer = head.recv(9)
        if answer.startswith(b"HTTP/1"):
            raise ValueError(
                "that port answers HTTP: it is probably the Ray dashboard, which `pawtune submit` "
                f"and `pawtune resume` take as http://{address}"
            )
        if len(answer) < 4 or answer[3] != HTTP2_SETTINGS:
            raise ValueError("that port answers, but not as a Ray head")


def no_cluster(address: str | None, reason: object, found: str | None = None) -> UserError:
    """The error where no cluster can be joined.

    Args:
        address: The address, as given.
        reason: Why not.
        found: The head that `auto` resolved to.
    """
    why = " ".join(str(reason).split())[:300]
    received = f"{address!r}, here {found}" if found not in (None, address) else repr(address)
    return UserError(
        f"--address must be that of a running Ray cluster, received {received}: {why}; give "
        "host:port of its head (ray start says it), or `local` to use this machine alone"
    )


def refuse_foreign(address: str | None) -> None:
    """Whoever runs the cluster that a search joins can run code in it, and in this process.

    So a run folder, which may be untrusted, does not decide on that.

    Args:
        address: Address that the run folder has recorded.

    Raises:
        UserError: It is that of a cluster on another machine.
    """
    host = re.sub("^.*://", "", address or "auto").rpartition(":")[0]
    if address in (None, "auto", "local") or host in ("localhost", "[::1]"):
        return
    if host.startswith("127."):
        return
    raise UserError(
        f"a run's cluster is joined again only where you name it, and this run names {address!r}; "
        f"give --address {address} if you trust it, or --address auto for the one running here, or "
        "--address local to use this machine alone"
    )
