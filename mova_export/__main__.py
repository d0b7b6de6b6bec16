"""`python -m mova_export` is `mova`."""

import sys

from mova_export.cli import main

sys.exit(main())
