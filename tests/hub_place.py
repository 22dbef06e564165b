"""Where this process has its Hub and its cache: to be imported before huggingface_hub, which reads it once.

That is the test Hub. With HF_DWT_TEST_TOKEN (and HF_DWT_TEST_ENDPOINT, by default the public Hub) it is a real one: the
tests that inject no faults run there, in temporary private repositories, and the others are skipped.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hub_server import OWNER_TOKEN, Hub

HF_HOME = Path(tempfile.mkdtemp(prefix="hf_home_"))
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
HUB = Hub(HF_HOME / "xet_store")
IS_REAL = bool(os.environ.get("HF_DWT_TEST_TOKEN"))
TOKEN = os.environ.get("HF_DWT_TEST_TOKEN") or OWNER_TOKEN
URL = os.environ.get("HF_DWT_TEST_ENDPOINT", "https://huggingface.co") if IS_REAL else HUB.url
os.environ |= {"HF_HOME": str(HF_HOME), "HF_ENDPOINT": URL}
# Else `datasets` counts its downloads at a third place.
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
