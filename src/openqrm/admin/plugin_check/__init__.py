"""What is wrong with a plug-in's declaration and code, without running it. One function for each concern.

A fault must be mended; a warning tells what usually should be. Both are sentences for its author.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.admin.plugin_check import cases, code, entities, files, purity, shell, storage
from openqrm.admin.plugin_check import settings as of_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin

VALIDATORS: tuple[Callable[[Plugin, Catalogue], Iterator[str]], ...] = (
    code.references,
    code.hooks,
    code.services,
    code.operations,
    code.imports,
    code.requirements,
    purity.drivers,
    of_settings.titles,
    of_settings.places,
    storage.methods,
    storage.locations,
    storage.capabilities,
    storage.exports,
    files.for_machines,
    files.root_mounts,
    files.readme,
    shell.scripts,
    cases.of_verbs,
    entities.names,
    entities.revisions,
)


def faults(plugin: Plugin, catalogue: Catalogue) -> list[str]:
    """Everything that is wrong with an installed plug-in."""
    return [fault for validator in VALIDATORS for fault in validator(plugin, catalogue)]


def warnings(plugin: Plugin, catalogue: Catalogue) -> list[str]:
    """What is not wrong, and yet should be looked at."""
    del catalogue
    return [*files.size(plugin), *shell.unchecked()]
