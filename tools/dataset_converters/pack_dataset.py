"""Pack a dataset of single files into tar shards (WebDataset's layout) or an LMDB.

  python pack_dataset.py data/imagenet/train packed/train
  python pack_dataset.py configs/mobileone_s0_in1k.py packed/val --split val --no-shuffle
  python pack_dataset.py data/coco/train2017 packed/coco_train --format lmdb --no-labels

The bytes of the images do not change. The tool reads everything back and compares it.
"""

from mobileone_mm.cli.run import ToolParser, run_tool
from mobileone_mm.config.options import ConfigOptions


def main(argv: list[str] | None = None) -> None:
    parser = ToolParser(description=__doc__)
    add = parser.add_argument
    add('source', metavar='SOURCE', help='folder of class folders, or a config')
    add('out', metavar='OUT', help='new or empty folder')
    add('--format', dest='form', choices=('shards', 'lmdb'), default='shards')
    add('--split', choices=('train', 'val', 'test'), help='dataset of the config (default: train)')
    add('--no-labels', dest='labels', action='store_false',
        help='images without classes, in any folders')  # fmt: skip
    add('--seed', type=int, default=0, help='seed of the order within the shards')
    add('--no-shuffle', action='store_true', help='keep the order (evaluation)')
    add('--shard-size', type=int, default=500, metavar='MB',
        help='size of a shard in MB, a whole number (default: 500)')  # fmt: skip
    add('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE',
        help='override settings of the config')  # fmt: skip
    args = vars(parser.parse_args(argv))
    if args.pop('no_shuffle'):
        args['seed'] = None

    from mobileone_mm.apis.pack_dataset import pack_dataset

    print(pack_dataset(**args))


if __name__ == '__main__':
    run_tool(main)
