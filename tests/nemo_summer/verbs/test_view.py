"""The page is served on this machine alone, and a taken port is said in one line."""

from __future__ import annotations

import socket

import pytest

from nemo_summer.verbs.view import open_port


def test_the_page_listens_on_this_machine_only() -> None:
    with open_port(0) as door:
        assert door.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_answered_with_the_setting_to_change() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match=r"is taken: set view\.port"):
            open_port(other.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_cannot_be_is_answered_likewise(port: int) -> None:
    with pytest.raises(ValueError, match=r"set view\.port"):
        open_port(port)
