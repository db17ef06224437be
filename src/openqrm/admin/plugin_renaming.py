"""New names for a copy of a plug-in, put into its text so that both can be installed side by side.

Only names are replaced: the package wherever it is written, and what is declared (plug-in, pools, exports, storage and
deployment types) where it is declared, tested or documented. What a name also stands for stays: `mount -t nfs`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.plugin_api.drivers import Export

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openqrm.plugin_api.plugin import Plugin

_DECLARING = frozenset({"Plugin", "Pool", "Export", "StorageType", "NodeFile"})
_HOOK = "root-mount."
_IN_CASES = re.compile(r'("(?:type|pool|export)"\s*:\s*)"([^"]*)"')


def stem_of(name: str) -> str:
    """What pools and exports are called after: `nfs` of `nfs-storage`."""
    return name.removesuffix("-storage")


def package_of(name: str) -> str:
    """A name as part of a module's name."""
    return name.replace("-", "_")


def refusal(plugin: Plugin) -> str | None:
    """Why a plug-in cannot be copied, if so."""
    if plugin.operations:
        return f"its operations ({plugin.operations[0].name}, …) can be declared once only"
    if plugin.entities:
        return "its tables are its own: the copy would need revisions of its own"
    if plugin.services:
        return f"its service {plugin.services[0].name} would use the same addresses as the copy's"
    named = [file.name for file in plugin.node_files if not file.name.startswith(_HOOK)]
    if named:
        return f"machines ask for its file {named[0]} by name"
    return None


@dataclass(frozen=True)
class Renaming:
    """From a plug-in to a new name and package. `words` are replaced everywhere; a skeleton's only."""

    plugin: Plugin
    name: str
    module: str
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people."""
        return self.name.replace("-", " ").capitalize()

    @property
    def names(self) -> dict[str, str]:
        """Declared names, old to new."""
        old = {thing.name for thing in self.plugin.provides}
        old |= {thing.deployment for thing in self.plugin.provides if isinstance(thing, Export)}
        old |= {prefix for thing in self.plugin.provides if (prefix := getattr(thing, "prefix", ""))}
        return {each: self._new(each) for each in old} | {self.plugin.name: self.name}

    def _new(self, old: str) -> str:
        if old == self.plugin.name:
            return self.name
        stem, mine = stem_of(self.plugin.name), stem_of(self.name)
        if old == stem or old.startswith(f"{stem}-"):
            return mine + old.removeprefix(stem)
        return f"{mine}-{old}"

    def file_name(self, name: str) -> str:
        """A test file's name, which says whose it is."""
        old, new = package_of(stem_of(self.plugin.name)), package_of(stem_of(self.name))
        renamed = re.sub(rf"(?<![a-z0-9]){re.escape(old)}(?![a-z0-9])", new, name)
        return renamed if new in renamed else name.replace("test_", f"test_{new}_", 1)

    def text(self, suffix: str, text: str, *, test: bool = False) -> str:
        """A file's text, by the suffix of its name."""
        text = re.sub(rf"(?<![\w.]){re.escape(self.plugin.module)}(?!\w)", self.module, text)
        if self.words:
            any_of = "|".join(re.escape(old) for old in sorted(self.words, key=len, reverse=True))
            text = re.sub(rf"(?<![A-Za-z0-9_])({any_of})(?![A-Za-z0-9_])", lambda found: self.words[found[1]], text)
        if suffix == ".py":
            return _sorted_imports(_replaced(text, self._constants(text, test=test)))
        if suffix == ".json":
            return _IN_CASES.sub(lambda found: f'{found[1]}"{self.names.get(found[2], found[2])}"', text)
        if suffix == ".md":
            return self._documented(text)
        return text

    def _documented(self, text: str) -> str:
        for old, new in sorted(self.names.items(), key=lambda pair: -len(pair[0])):
            marked = rf"(?<![\w-]){re.escape(old)}(?![\w-])" if "-" in old else rf"(?<=`){re.escape(old)}(?=`)"
            text = re.sub(marked, new, text)
        return text

    def _constants(self, text: str, *, test: bool) -> Iterator[tuple[ast.Constant, str]]:
        """The strings to replace, with what comes in their place."""
        names = self.names
        names |= {f"{_HOOK}{old}": f"{_HOOK}{new}" for old, new in names.items()}
        tree = ast.parse(text)
        if test:
            yield from _equal(tree, names)
            return
        for call in ast.walk(tree):
            declaring = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _DECLARING
            if isinstance(call, ast.Call) and declaring:
                for keyword in call.keywords:
                    yield from self._declared(call, keyword, names)

    def _declared(
        self, call: ast.Call, keyword: ast.keyword, names: Mapping[str, str]
    ) -> Iterator[tuple[ast.Constant, str]]:
        if not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)):
            return
        of_plugin = isinstance(call.func, ast.Name) and call.func.id == "Plugin"
        if keyword.arg == "title" and (of_plugin or keyword.value.value == self.plugin.title):
            yield keyword.value, self.title
        elif keyword.arg in ("name", "deployment", "pool", "export", "through", "prefix"):
            yield from _equal(keyword.value, names)


def _equal(tree: ast.AST, names: Mapping[str, str]) -> Iterator[tuple[ast.Constant, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
            yield node, names[node.value]


def _replaced(text: str, changes: Iterator[tuple[ast.Constant, str]]) -> str:
    """The last one first, so that the places of the others stay right. Columns count bytes."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for node, new in sorted(changes, key=lambda pair: (pair[0].lineno, pair[0].col_offset), reverse=True):
        if node.lineno == node.end_lineno and node.end_col_offset is not None:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line[: node.col_offset] + f'"{new}"'.encode() + line[node.end_col_offset :]
    return b"".join(lines).decode()


def _sorted_imports(text: str) -> str:
    """Lines `from … import …` that follow each other, sorted again by their modules."""
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.If))]
    for body in bodies:
        group: list[ast.ImportFrom] = []
        for node in [*body, None]:
            follows = (
                bool(group) and isinstance(node, ast.ImportFrom) and node.lineno == (group[-1].end_lineno or 0) + 1
            )
            if group and not follows:
                _sort(lines, group)
                group = []
            if isinstance(node, ast.ImportFrom):
                group.append(node)
    return "".join(lines)


def _sort(lines: list[str], group: list[ast.ImportFrom]) -> None:
    pieces = {id(node): lines[node.lineno - 1 : node.end_lineno] for node in group}
    first, last = group[0].lineno - 1, group[-1].end_lineno
    wanted = sorted(group, key=lambda node: node.module or "")
    lines[first:last] = [line for node in wanted for line in pieces[id(node)]]
