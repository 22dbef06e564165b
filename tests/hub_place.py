"""Where this process has its Hub and its cache: to be imported before huggingface_hub, which reads it once."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hub_server import Hub

HF_HOME = Path(tempfile.mkdtemp(prefix="hf_home_"))
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
HUB = Hub(HF_HOME / "xet_store")
os.environ |= {"HF_HOME": str(HF_HOME), "HF_ENDPOINT": HUB.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
