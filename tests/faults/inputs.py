"""What is mutated, and how: YAMLs, network files, command lines, public calls; all from a seed."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import yaml

WORDS = [
    "controller",
    "mode",
    "one_shot",
    "multi_trial",
    "gdas",
    "enas",
    "null",
    "~",
    "yes",
    "chunked",
    "learned",
    "a:b",
]
SCALARS = [
    *WORDS,
    *(0, 1, -1, 2**31, 2**53, 2**64, 10**400, 1.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan")),
    *("", " ", "x" * 5000, "\x00", "\ud800", "é", "日本", "../..", "~nobody/x", "/dev/null", "a.b:C", ":", "a:", ":b"),
    *(True, False, None, [], {}, [[]], [None], {"a": 1}, {1: 2}, {None: None}, "2020-13-45", "0x1F", "1_000", "1:30"),
]
TEXTS = [
    b"!!python/object/apply:os.system ['true']",
    b"!!int '9" + b"9" * 6000 + b"'",
    b"2020-13-45",
    b"2020-02-30",
    b"!!timestamp x",
    b"!!binary =",
    b"!!set {a, b}",
    b"!!omap [a: 1]",
    b"!!float x",
    b"&a [*a]",
    b"*nothing",
    b"<<: [1]",
    b"\xff\xfe",
    b"\xc3\x28",
    b"\x00",
    b"{[1]: 2}",
    b"? {a: 1}\n: 2",
    b"[" * 3000,
    b"{a: " * 300,
    b"- " * 2000,
    b"\t",
    b"%YAML 9.9\n---",
    b"---\n---",
    b"'",
    b'"\\ud800"',
    b"&a x\n*a : 1",
]
HARMLESS = [b"0b2", b"0o9", b"190:20:30.15", b"...", b"|", b"010", b"1e5", b"0x1F", b"off"]
LAUGHS = b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{chr(98 + number)}: &{chr(98 + number)} [{', '.join([f'*{chr(97 + number)}'] * 8)}]\n".encode()
    for number in range(9)
)


def mutated_yaml(document: dict, generator: random.Random) -> bytes:
    """Return an experiment's YAML with a few things changed: values, keys, or the text itself."""
    changed = copy.deepcopy(document)
    for _ in range(generator.randint(0, 3)):
        _change(changed, generator)
    try:
        text = yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        text = repr(changed).encode("utf-8", "surrogatepass")
    for _ in range(generator.choice([0, 0, 1, 2])):
        text = _change_text(text, generator)
    return text


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Return all places inside of nested lists and dicts."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, one in inside:
        found += places(one, (*path, key))
    return found


def at(value: object, path: tuple) -> object:
    for key in path:
        value = value[key]
    return value


def _change(document: dict, generator: random.Random) -> None:
    known = places(document)
    if not known:
        return
    *path, key = generator.choice(known)
    section = at(document, tuple(path))
    what = generator.randrange(5)
    if what == 0:
        section[key] = copy.deepcopy(generator.choice(SCALARS))
    elif what == 1:
        del section[key]
    elif what == 2 and isinstance(section, dict):
        section[generator.choice([*WORDS, 1, None, str(key).upper(), str(key) + "x"])] = section.pop(key)
    elif what == 3:
        other = generator.choice(known)
        section[key] = copy.deepcopy(at(document, other)) if other != (*path, key) else None
    elif isinstance(section, dict):
        section[generator.choice(WORDS)] = copy.deepcopy(generator.choice(SCALARS))


def _change_text(text: bytes, generator: random.Random) -> bytes:
    lines = text.split(b"\n")
    place = generator.randrange(len(lines))
    what = generator.randrange(7)
    if what == 0:
        lines[place] = lines[place].partition(b":")[0] + b": " + generator.choice(TEXTS + HARMLESS)
    elif what == 1:
        lines.insert(place, generator.choice(lines))
    elif what == 2:
        lines.insert(place, generator.choice(TEXTS))
    elif what == 3:
        data = bytearray(text)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        return bytes(data)
    elif what == 4:
        return text[: generator.randrange(len(text))]
    elif what == 5:
        return text.decode("utf-8", "replace").encode(
            generator.choice(["utf-16", "latin-1", "utf-8-sig", "utf-32"]), "replace"
        )
    else:
        return text + generator.choice([LAUGHS, b"\nx: " + generator.choice(TEXTS)])
    return b"\n".join(lines)


def document_of(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def mutated_description(description: dict, generator: random.Random) -> dict:
    """Return what a network's file describes, with one to three things changed."""
    changed = copy.deepcopy(description)
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        known = places(changed)
        *path, key = generator.choice(known)
        section = at(changed, tuple(path))
        value, what = section[key], generator.randrange(6)
        if what <= 1:
            section[key] = _near(value, generator)
        elif what == 2:
            del section[key]
        elif what == 3:
            section[key] = copy.deepcopy(at(changed, generator.choice(known)))
        elif what == 4 and isinstance(section, list):
            section.insert(key, copy.deepcopy(generator.choice(section)))
        elif what == 4 and isinstance(section, dict):
            section[generator.choice([*section, "x", ""])] = section.pop(key)
        else:
            section[key] = copy.deepcopy(generator.choice(SCALARS))
    return changed


NAMES = ["trap_module:Trap", "os:system", "subprocess:Popen", "builtins:eval", "torch.nn.modules.linear:Linear"]
NAMES += ["aten::set_.source_Tensor", "aten::from_file.default", "aten::relu.default", "aten::mm.default"]
NAMES += ["torch.hub:load", "x" * 300, "", "../x"]


def _near(value: object, generator: random.Random) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return generator.choice([value + 1, value - 1, -value, 0, value * 2, 10**9, 2**62, 2**70])
    if isinstance(value, float):
        return generator.choice([value * 2, -value, 0.0])
    if isinstance(value, str):
        return generator.choice([value[:-1], value + "x", value.upper(), *NAMES])
    if isinstance(value, list):
        return generator.choice([value[::-1], value[:-1], value * 2])
    return generator.choice(SCALARS[:20])
