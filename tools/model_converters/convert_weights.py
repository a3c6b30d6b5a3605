#!/usr/bin/env python
"""Rename the weights of a MobileOne classifier for another code base, or change their form.

python tools/model_converters/convert_weights.py mobileone_s0.pth.tar s0.pth
python tools/model_converters/convert_weights.py mobileone_mm://s2-apple s2.safetensors --to timm
python tools/model_converters/convert_weights.py s0.pth s0_train.pth --form train

IN may be a file of Apple's, timm's, CoreNet's or mmpretrain's naming (.pth, .pth.tar, .pt,
.safetensors), an address, or a name (python -m mobileone_mm.weights.published lists them).
"""

from mobileone_mm.cli.run import ToolParser, run_tool


def main(argv: list[str] | None = None) -> None:
    from mobileone_mm.weights.convert import FORMS, convert_weights
    from mobileone_mm.weights.names import SCHEMES

    parser = ToolParser(description=__doc__)
    add = parser.add_argument
    add('source', metavar='IN', help='weights to read')
    add('out', metavar='OUT', help='file to write')
    add('--to', choices=SCHEMES, default='mmpretrain', help='whose names (default: mmpretrain)')
    add('--form', choices=FORMS, help='training or deploy form (default: that of the input)')
    args = vars(parser.parse_args(argv))
    done = convert_weights(**args)
    size = f'MobileOne-{done["arch"].upper()}' if done['arch'] else 'MobileOne of no public size'
    names, forms = done['scheme'], done['form']
    print(
        f'{size}: {done["tensors"]} tensors, {names["before"]} ({forms["before"]}) -> '
        f'{names["after"]} ({forms["after"]}), written to {args["out"]}'
    )
    if (forms['before'], forms['after']) == ('deploy', 'train'):
        print("Train from it with custom_hooks=[dict(type='mobileone_mm.RecalibrateHook')].")


if __name__ == '__main__':
    run_tool(main)
