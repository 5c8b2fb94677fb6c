"""Run one of our modules right after somebody else's package is imported.

`import actshift` must make `PeftModel.from_pretrained` know our method, yet importing peft ourselves would
cost seconds that `actshift --help` and `import actshift` must not pay. So the import of peft, whenever it
comes, is what triggers the registration.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importlib.abc brings tempfile and shutil, and takes ten times what the rest does
    from importlib.abc import Loader, MetaPathFinder
else:
    Loader = MetaPathFinder = object


class _LoadThenImport(Loader):
    """A package's own loader, followed by the import of the module that waited for it."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The package must see its own loader, as importlib.resources and pickle look at it.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        import_module(self.finder.then)


class _Finder(MetaPathFinder):
    """Finds one package as everybody else would, and wraps its loader.

    It stays in place until the package is really executed: many libraries only ask whether a package could
    be found (transformers does for peft), and that must not use the hook up.
    """

    def __init__(self, package: str, then: str) -> None:
        self.package = package
        self.then = then
        self.searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package or self.searching:
            return None
        self.searching = True  # the search below must not find us again
        try:
            spec = find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _LoadThenImport(spec.loader, self)
        return spec


def after_import(package: str, then: str) -> None:
    """Import module `then` once `package` has been imported: now, if it has been already.

    >>> after_import("json", "colorsys")
    """
    if package in sys.modules:
        import_module(then)
    else:
        sys.meta_path.insert(0, _Finder(package, then))
