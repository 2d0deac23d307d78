"""`panic view`: the stores in a browser, live.

panic view; panic view A B --open; panic view --lan
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from panic.cli.common import Shared, command, complete_experiment, say, tell_options
from panic.errors import UsageError

MISSING = "panic view needs the extra `view`."


@command
def view(
    shared: Shared,
    stores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STORE", help="Stores to show; by default that of --store.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="PORT", min=0, max=65535, help="By default any free one.")
    ] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    lan: Annotated[
        bool, typer.Option("--lan", help="Answer on this machine's address, for a phone; read only.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Allow remarks with --lan, too.")] = False,
    cert: Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="A certificate: https.")] = None,
    static: Annotated[
        Path | None,
        typer.Option("--static", metavar="DIR", help="Write one experiment as a folder to pass on, and end."),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment",
            "-e",
            metavar="NAME",
            help="With --static: which, by default the latest.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option("--training", metavar="DIR", help="The folder of a training, to be shown, too."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The key of --cert.")] = None,
) -> None:
    """Show stores in a browser: all runs side by side, live while an experiment is performed."""
    paths = _stores(shared, stores or [])
    if static is not None:
        names = ("--port", "--open", "--lan", "--write", "--cert", "--key")
        tell_options(
            dict(zip(names, (port, open_browser, lan, write, cert, key), strict=True)), "with --static"
        )
        return _write_bundle(shared, paths, experiment or "latest", static)
    tell_options({"--experiment": experiment, "--write": write and not lan}, "here")
    certificate = _certificate(cert, key)
    for folder in training or []:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder.", hint="Name the `output` of a training.")
    try:
        from panic.view.access import Access
        from panic.view.server import application, listening, serve
        from panic.view.shrinking import Shrinkers
    except ModuleNotFoundError as error:
        raise UsageError(MISSING, hint=f"pip install 'panic[view]' ({error.name} is missing).") from error
    host = lan_address() if lan else "127.0.0.1"
    listener = listening(host, port)
    scheme = "http" if certificate is None else "https"
    hosts = [host, socket.gethostname().lower()] if lan else ["127.0.0.1", "localhost", "::1"]
    scope = "\0".join([scheme, host, *map(os.path.realpath, paths)])
    access = Access(hosts=hosts, scope=scope, is_writable=write or not lan, is_https=certificate is not None)
    url = f"{scheme}://{host}:{listener.getsockname()[1]}/?token={access.token}"
    _tell(shared, url, is_plain=lan and certificate is None, has_qr=lan)
    with closing(Shrinkers()) as shrink, ExitStack() as stack:
        if open_browser:
            typer.launch(stack.enter_context(_leading_to(url)))
        return serve(application(paths, access, training or [], shrink), listener, certificate)


@contextmanager
def _leading_to(url: str) -> Iterator[str]:
    """A file that leads to an address and only this user can read: commands can be read by everybody."""
    with tempfile.NamedTemporaryFile("w", prefix="panic-view-", suffix=".html") as file:
        file.write(
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={url}">\n'
        )
        file.flush()
        yield file.name


def _certificate(cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The files of a certificate and its key, if given. Raises UsageError for what cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("--cert and --key are given together.")
    for file in (cert, key):
        if not file.is_file():
            raise UsageError(f"{file} is no file.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"{cert} and {key} are no certificate with its key: {error}.") from error
    return cert, key


def _stores(shared: Shared, given: Sequence[Path]) -> list[Path]:
    """The folders that are shown, each of which can be opened."""
    from panic.store import Store

    if given and shared.store is not None:
        raise UsageError("Give stores either as arguments or with --store.")
    paths = list(given) or [shared.store_path()]
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise UsageError("One of the stores is given twice.")
    for path in paths:
        Store(path, copy_older=True).close()
    return paths


def _write_bundle(shared: Shared, paths: Sequence[Path], experiment: str, folder: Path) -> None:
    """Write one experiment as a folder; how large it is going to be is said before."""
    from panic.cli.progress import telling
    from panic.cli.render import size
    from panic.store import Store, reading
    from panic.view import bundle

    if len(paths) > 1:
        raise UsageError("--static takes one store.")
    with Store(paths[0], copy_older=True) as store:
        row = reading.experiment(store, experiment)
        found = bundle.size(store, row)
        told = (
            f"{row.name}: {found.num_runs:,} runs, {found.num_images:,} images, about {size(found.num_bytes)}"
        )
        if not shared.quiet:
            say(told, err=True)
        free = shutil.disk_usage(
            next(one for one in (folder, *folder.absolute().parents) if one.exists())
        ).free
        if found.num_bytes > free:
            raise UsageError(f"{folder} has no room for it: {size(free)} are free.", hint=told)
        with telling(str(folder), quiet=shared.quiet) as tell:
            lost = bundle.write(store, row, folder, tell)
    if lost:
        say(f"The store has lost {lost:,} images, which are left out.", err=True)
    if not shared.quiet:
        say(f"Bundle: {folder}/index.html")


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
