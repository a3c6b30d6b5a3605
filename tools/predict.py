"""Predict images with a classifier, detector or segmentor.

  python tools/predict.py CONFIG CHECKPOINT image.jpg folder '*.png' --out-dir predictions

Writes predictions.json, drawings (vis/) and label maps of segmentors (masks/). predictions.json grows
with each batch. Images that cannot be read or predicted are left out, and they and those that cannot be
drawn are listed at the end; the exit code is 2 if no image can be predicted.
"""

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add('inputs', nargs='+', metavar='INPUT', help='files, folders, patterns')
    add('--out-dir', required=True, metavar='DIR', help='folder of the results')
    add('--score-thr', type=float, default=0.3, help='lowest score of a box (default: 0.3)')
    add('--batch-size', type=int, default=1, help='images per batch (default: 1)')
    add('--no-vis', action='store_true', help='do not draw')
    args = parser.parse_args(argv)

    from mobileone_mm.apis.predict import predict

    result = predict(**vars(args))
    print(f'{len(result["predictions"])} images predicted; results in {args.out_dir}')
    for key, what in (('unreadable', 'read or predicted'), ('undrawn', 'drawn or written')):
        if result[key]:
            print(f'{len(result[key])} images could not be {what}:')
            for image in result[key]:
                print(f'  {image["reason"]}')


if __name__ == '__main__':
    run_tool(main)
