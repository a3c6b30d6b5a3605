"""What a spawned child of ``python -m mobileone_mm.compat`` runs as its main module.

Importing it has put the stand-ins in place; then it becomes the parent's program.
"""

from __future__ import annotations

if __name__ == '__mp_main__':
    from mobileone_mm.compat.script import run_as_child

    globals().update(run_as_child())
