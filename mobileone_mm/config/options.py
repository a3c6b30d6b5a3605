"""Values of ``--cfg-options``: Python's literals, and the shorter forms that mmengine knows."""

from __future__ import annotations

import argparse
import ast
from typing import Any

_CLOSING = {'(': ')', '[': ']', '{': '}'}
_WORDS = {'true': True, 'false': False}


class ConfigOptions(argparse.Action):
    """KEY=VALUE pairs as a dict, in the place of mmengine's ``DictAction``.

    That one takes every space out of a value, so that class names and paths with spaces change
    without a word, knows no dicts, and recurses without end at ``dict(a=1,b=2)``. Whatever else it
    takes gives the same here. See :func:`parse_value`.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values or ():
            key, equals, value = pair.partition('=')
            if not key or not equals:
                parser.error(f"{option_string}: got '{pair}'; KEY=VALUE is needed")
            try:
                options[key] = parse_value(value)
            except ValueError as error:
                parser.error(f'{option_string}: {key}: {error}')
        setattr(namespace, self.dest, options)


def parse_value(text: str) -> Any:
    """The value that a text of the command line stands for.

    Lists, tuples and dicts in Python's writing, ``dict(a=1)`` included; lists without quotes around
    their words (``[a, b]``) or without brackets (``1,2,3``); numbers, True, False, None; else text. A
    single value in parentheses is a tuple.

    Raises:
        ValueError: Brackets do not fit, or what is written like a dict is none.
    """
    text = text.strip().strip('\'"')
    found = _literal(text)
    if found is not None:
        return found
    if text.startswith(('{', 'dict(')) and not text.startswith('{{'):  # {{$NAME}} is mmengine's
        raise ValueError(
            f'got {text[:80]}; that is no dict in Python (texts in it need quotes: "dict(type=\'X\')")'
        )
    bracketed = text.startswith(('(', '[')) and _closes_at(text) == len(text) - 1
    if not bracketed and ',' not in text:
        return _single(text)
    _check_brackets(text)
    pieces = _split(text[1:-1] if bracketed else text)
    if pieces == [text]:  # all commas stand in brackets that belong to a longer text
        return _single(text)
    parts = [parse_value(piece) for piece in pieces]
    return tuple(parts) if bracketed and text[0] == '(' else parts


def _literal(text: str) -> Any:
    """A list, tuple or dict in Python's writing; None for anything else."""
    if not text.startswith(('[', '(', '{', 'dict(')):
        return None
    try:
        value = _evaluate(ast.parse(text, mode='eval').body)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if isinstance(value, tuple) and _closes_at(text) < len(text) - 1:
        return list(value)  # (1,2),(3,4): commas without brackets around them make lists
    return value if isinstance(value, (list, tuple, dict)) else None


def _evaluate(node: ast.AST) -> Any:
    if isinstance(node, ast.List):
        return [_evaluate(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_evaluate(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError('** in a dict')
        pairs = zip(node.keys, node.values, strict=True)
        return {ast.literal_eval(key): _evaluate(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if node.args or any(word.arg is None for word in node.keywords):
            raise ValueError('dict() of something else than keywords')
        return {str(word.arg): _evaluate(word.value) for word in node.keywords}
    return ast.literal_eval(node)


def _single(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None if text == 'None' else _WORDS.get(text.lower(), text)


def _check_brackets(text: str) -> None:
    for opening, closing in _CLOSING.items():
        if text.count(opening) != text.count(closing):
            raise ValueError(f'got {text[:80]}, where brackets {opening}{closing} do not fit')


def _closes_at(text: str) -> int:
    """Where the bracket at the start of a text closes."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in _CLOSING) - (char in _CLOSING.values())
        if depth == 0:
            return place
    return -1


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no bracket."""
    parts, start, depth = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in _CLOSING) - (char in _CLOSING.values())
        if char == ',' and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return parts if not text[start:].strip() else [*parts, text[start:]]
