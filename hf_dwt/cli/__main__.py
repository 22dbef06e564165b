"""`python -m hf_dwt.cli`."""

import sys

from hf_dwt.cli import main

sys.exit(main())
