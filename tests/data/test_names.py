"""Data sets by name, and what importing them costs."""

import subprocess
import sys

import pytest

from kdutils import data


def test_every_name_is_a_function_of_the_module_that_load_calls(tmp_path):
    assert {"digits", "glyphs", "blended", "mnist", "fashion_mnist", "usps", "svhn"} < {*data.names()}
    assert all(callable(getattr(data, name)) and name in data.__all__ for name in data.names())
    assert data.load("digits", size=8).shape == (1, 8, 8)
    assert data.load("glyphs", characters="digits", count=10).classes == tuple("0123456789")
    with pytest.raises(FileNotFoundError, match="mnist"):
        data.load("mnist", root=tmp_path, download=False)


def test_an_unknown_name_lists_all_and_suggests_the_nearest():
    with pytest.raises(ValueError, match="name='fashon_mnist' is not known; did you mean 'fashion_mnist'") as error:
        data.load("fashon_mnist")
    assert all(name in str(error.value) for name in data.names())


def test_importing_the_data_module_loads_no_heavy_library():
    program = (
        "import sys, torch; before = {*sys.modules}; import kdutils.data; "
        "print(*({'sklearn', 'scipy', 'matplotlib', 'PIL', 'torchvision'} & ({*sys.modules} - before)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
