import subprocess
import sys

import pytest

import hf_dwt.data


def test_importing_the_package_imports_no_torch():
    program = "import sys, hf_dwt.data; assert not {'torch', 'datasets', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there():
    assert all(callable(getattr(hf_dwt.data, name)) for name in hf_dwt.data.__all__)
    assert set(hf_dwt.data.__all__) <= set(dir(hf_dwt.data))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = hf_dwt.data.nothing
