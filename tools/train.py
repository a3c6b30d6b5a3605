"""Train a classifier, detector or segmentor.

python tools/train.py configs/ssdlite_mobileone_s2_coco.py
torchrun --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch
"""

from mobileone_mm.cli.arguments import add_run_arguments, tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__, checkpoint=False)
    add_run_arguments(parser)
    add = parser.add_argument
    add('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
        help='continue a run, by default from the latest checkpoint of the work dir')  # fmt: skip
    add('--amp', action='store_true', help='mixed precision (GPU)')
    add('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    add('--no-validate', action='store_true', help='do not evaluate during training')
    add('--tensorboard', action='store_true', help='write curves and images for TensorBoard')
    add('--stop-at-broken-images', action='store_true', help='end the run at an image or mask that '
        'cannot be read (default: report it and continue)')  # fmt: skip
    add('--dry-run', nargs='?', const='', metavar='PNG', help='show schedules, sizes, time and memory '
        'without training (default: WORK_DIR/plan.png)')  # fmt: skip
    args = vars(parser.parse_args(argv))
    args.pop('local_rank')
    image = args.pop('dry_run')
    if image is not None:
        from mobileone_mm.apis.dry_run import dry_run

        dry_run(out=image, **args)
    else:
        from mobileone_mm.apis.train import train

        train(**args)


if __name__ == '__main__':
    run_tool(main)
