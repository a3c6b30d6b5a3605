#!/usr/bin/env python
"""Run the teachers of a distilling config over its training images once, and store their outputs.

python tools/misc/store_teacher_outputs.py CONFIG OUT_DIR --views 10
python tools/train.py CONFIG --cfg-options model.outputs=OUT_DIR

Each view is a file of its own, and existing views are kept: add views later, or write different views
on several machines (--first-view). A repeated call continues an interrupted view (view_NNNN.part) and
writes damaged views again.
"""

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__, checkpoint=False)
    add = parser.add_argument
    add('out_dir', metavar='OUT_DIR', help='folder of the outputs')
    add('--views', type=int, default=1, help='number of views (default: 1)')
    add('--first-view', type=int, default=0, help='number of the first view (default: 0)')
    add('--topk', type=int, default=10, help='probabilities per image; 0 for all (default: 10)')
    add('--seed', type=int, default=0, help='other seeds give other views')
    add('--batch-size', type=int, help='images of a batch (default: that of the training)')
    args = parser.parse_args(argv)

    from mobileone_mm.apis.store_teacher_outputs import store_teacher_outputs

    store_teacher_outputs(**vars(args))


if __name__ == '__main__':
    run_tool(main)
