"""Values of ``--cfg-options``: Python's literals, and the shorter forms that mmengine knows."""

import ast
from argparse import Action, ArgumentParser, Namespace
from typing import Any

_CLOSING = {'(': ')', '[': ']', '{': '}'}


class UnbracketedList(list[Any]):
    """A list that the command line gives without brackets: ``a,b``. It may be one string."""

    def __init__(self, items: list[Any], text: str) -> None:
        super().__init__(items)
        self.text = text


class ConfigOptions(Action):
    """Collect KEY=VALUE pairs in a dict, in place of mmengine's ``DictAction``.

    mmengine removes every space from a value, so that class names and paths change without a message;
    it knows no dicts, and recurses without end at ``dict(a=1,b=2)``. Other values give the same here.
    """

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: Any = None
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values or ():
            key, equals, value = pair.partition('=')
            if not key or not equals:
                parser.error(f"{option_string}: got '{pair}'; expected KEY=VALUE")
            try:
                parsed, text = parse_value(value), value.strip().strip('\'"')
                bare = isinstance(parsed, list) and not text.startswith('[')
                options[key] = UnbracketedList(parsed, text) if bare else parsed
            except ValueError as error:
                parser.error(f'{option_string}: {key}: {error}')
        setattr(namespace, self.dest, options)


def parse_value(text: str) -> Any:
    """Parse a value of the command line; a ValueError says why it is malformed.

    Allowed are lists, tuples and dicts as in Python, ``dict(a=1)`` included; lists whose strings have
    no quotes (``[a, b]``) or that have no brackets (``1,2,3``); numbers, True, False and None. Anything
    else is a string. A single value in parentheses is a tuple.
    """
    text = text.strip().strip('\'"')
    if text.startswith(('[', '(', '{', 'dict(')):
        try:
            value = ast.literal_eval(_DictCalls().visit(ast.parse(text, mode='eval')))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
        if isinstance(value, tuple) and not _is_bracketed(text):
            return list(value)  # (1,2),(3,4): commas without brackets around them make lists
        if isinstance(value, (list, tuple, dict)):
            return value
    if text.startswith(('{', 'dict(')) and not text.startswith('{{'):  # {{$NAME}} is mmengine's
        raise ValueError(
            f'got {text[:80]}, which is not a dict in Python (quote its strings: "dict(type=\'X\')")'
        )
    bracketed = text.startswith(('(', '[')) and _is_bracketed(text)
    if not bracketed and ',' not in text:
        return _single(text)
    for opening, closing in _CLOSING.items():
        if text.count(opening) != text.count(closing):
            raise ValueError(f'got {text[:80]}; its brackets {opening}{closing} are unbalanced')
    pieces = _split(text[1:-1] if bracketed else text)
    if pieces == [text]:  # all commas are inside brackets that belong to a longer string
        return _single(text)
    parts = [parse_value(piece) for piece in pieces]
    return tuple(parts) if bracketed and text[0] == '(' else parts


class _DictCalls(ast.NodeTransformer):
    """Replaces ``dict(a=1)`` by ``{'a': 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = not node.args and all(word.arg for word in node.keywords)
        if named and isinstance(node.func, ast.Name) and node.func.id == 'dict':
            keys: list[ast.expr | None] = [ast.Constant(word.arg) for word in node.keywords]
            return ast.Dict(keys, [word.value for word in node.keywords])
        return node  # `ast.literal_eval` refuses all other calls


def _single(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None if text == 'None' else {'true': True, 'false': False}.get(text.lower(), text)


def _split(text: str) -> list[str]:
    """Split at the commas that are in no bracket."""
    parts, depth = [''], 0
    for char in text:
        depth += (char in _CLOSING) - (char in _CLOSING.values())
        if char == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += char
    return parts if parts[-1].strip() else parts[:-1]


def _is_bracketed(text: str) -> bool:
    """Return whether the bracket at the start of a text closes at its end."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in _CLOSING) - (char in _CLOSING.values())
        if depth == 0:
            return place == len(text) - 1
    return False
