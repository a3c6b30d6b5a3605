"""``python -m mobileone_mm.compat SCRIPT [ARGS...]``: run a host's script with the stand-ins."""

from __future__ import annotations

import sys

from .script import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
