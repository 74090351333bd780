from collections.abc import Iterator

import pytest

from nemo_summer.parallel import cpu


@pytest.fixture(autouse=True)
def torch_as_it_is() -> Iterator[None]:
    """Formulas are held against torch's own functions, some of which torch compiles and cannot where names of it are
    replaced; whichever tests ran before."""
    was_installed = bool(cpu._UNDO)
    cpu.uninstall()
    yield
    if was_installed:
        cpu.install()
