"""`panic view`: the stores in a browser, live.

panic view; panic view A B --open; panic view --lan
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from panic.cli.common import Shared, command, say
from panic.errors import UsageError

MISSING = "panic view needs the extra `view`."


@command
def view(
    shared: Shared,
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[STORE]...", help="Stores to show; by default that of --store.", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="By default any free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    lan: Annotated[
        bool, typer.Option("--lan", help="Answer on this machine's address, for a phone; read only.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Allow remarks with --lan, too.")] = False,
    cert: Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="A certificate: https.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The key of --cert.")] = None,
) -> None:
    """Show stores in a browser: all runs side by side, live while an experiment is performed."""
    try:
        from panic.view.access import Access
        from panic.view.server import application, listening, serve
    except ModuleNotFoundError as error:
        raise UsageError(MISSING, hint=f"pip install 'panic[view]' ({error.name} is missing).") from error
    paths = _stores(shared, stores or [])
    if (cert is None) != (key is None):
        raise UsageError("--cert and --key are given together.")
    for file in filter(None, (cert, key)):
        if not file.is_file():
            raise UsageError(f"{file} is no file.")
    host = lan_address() if lan else "127.0.0.1"
    listener = listening(host, port)
    bound = listener.getsockname()[1]
    scheme = "https" if cert else "http"
    names = [host, socket.gethostname().lower()] if lan else ["127.0.0.1", "localhost", "::1"]
    scope = "\0".join([scheme, host, *(str(path.resolve()) for path in paths)])
    access = Access(hosts=names, scope=scope, is_writable=write or not lan, is_https=cert is not None)
    url = f"{scheme}://{host}:{bound}/?token={access.token}"
    _tell(shared, url, is_plain=lan and cert is None, has_qr=lan)
    if open_browser:
        typer.launch(url)
    serve(application(paths, access), listener, None if cert is None or key is None else (cert, key))


def _stores(shared: Shared, given: Sequence[Path]) -> list[Path]:
    """The folders that are shown, each of which can be opened."""
    from panic.store import Store

    if given and shared.store is not None:
        raise UsageError("Give stores either as arguments or with --store.")
    paths = list(given) or [shared.store_path()]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("One of the stores is given twice.")
    for path in paths:
        Store(path, copy_older=True).close()
    return paths


def lan_address() -> str:
    """This machine's address in its network. Raises UsageError where it has none.

    Nothing is sent: a datagram socket only asks the system which way it would go.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(f"This machine has no address in a network: {error.strerror}.") from error


def _tell(shared: Shared, url: str, *, is_plain: bool, has_qr: bool) -> None:
    """Print the address, which is the only place where its token stands."""
    if is_plain:
        say("Plain http: whoever is in this network can read along. --cert and --key encrypt it.", err=True)
    say(url)
    if has_qr and not shared.quiet:
        try:
            import segno
        except ModuleNotFoundError:
            say("The package segno would print it as a QR code.", err=True)
        else:
            segno.make(url).terminal(compact=True)
    if not shared.quiet:
        say("Ctrl-C ends it.", err=True)
