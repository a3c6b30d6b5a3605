"""Measure how fast the training pipeline of a config prepares images, and how fast the model trains.

  python tools/analysis_tools/measure_input.py configs/mobileone_s0_in1k.py --num-workers 1 4 8
  python tools/analysis_tools/measure_input.py CONFIG --no-train-step --target-rate 2500
  python tools/analysis_tools/measure_input.py CONFIG \\
      --against train_dataloader.dataset.data_root=/ssd/imagenet

The first pass is reported separately, because it reads from the storage. The later passes find the
images in the page cache, unless --num is too large for it.
"""

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool
from mobileone_mm.config.options import ConfigOptions


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__, checkpoint=False)
    add = parser.add_argument
    add('--num-workers', type=int, nargs='+', default=(), metavar='N',
        help='worker processes (default: 1 and the number of cores)')  # fmt: skip
    add('--num', type=int, default=512, help='images in each pass')
    add('--repeats', type=int, default=5, help='passes; the median counts')
    add('--against', nargs='+', action=ConfigOptions, metavar='KEY=VALUE',
        help='compare with the pipeline that has these overrides')  # fmt: skip
    add('--no-train-step', dest='train_step', action='store_false',
        help='do not time the training step of the model')  # fmt: skip
    add('--target-rate', type=float, metavar='R',
        help='images/s of a GPU, to compute how many cores it needs')  # fmt: skip
    args = parser.parse_args(argv)

    from mobileone_mm.apis.measure_input import measure_input

    measure_input(**vars(args))


if __name__ == '__main__':
    run_tool(main)
