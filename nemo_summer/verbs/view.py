"""`summer view`: a web page over a dataset, for this machine only."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemo_summer.recipe import Recipe

HOST = "127.0.0.1"
"""The page knows no passwords, so it is for this machine; from elsewhere: ssh -L 8400:127.0.0.1:8400 MACHINE."""


def run(recipe: Recipe) -> int:
    """Serves the page until Ctrl-C."""
    import uvicorn

    from energon_datasets.viewer.app import make_app

    app = make_app(Path(recipe.data.path), recipe.data.where)
    with open_port(recipe.view.port) as door:
        print(f"http://{HOST}:{door.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[door])
    return 0


def open_port(port: int) -> socket.socket:
    """A socket that listens on this machine alone; 0 takes any free port. ValueError where the port is taken."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((HOST, port))
    except (OSError, OverflowError) as error:
        door.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "is taken" if taken else f"cannot be used ({error})"
        raise ValueError(f"port {port} {why}: set view.port to another one, 0 takes any that is free") from None
    return door
