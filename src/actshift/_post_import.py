"""Import an actshift module right after another package has been imported.

`import actshift` must make the method known to `PeftModel.from_pretrained`. Importing peft there would add seconds to
`import actshift` and `actshift --help`, so the import of peft itself triggers the registration. The finder is listed
with all other patches in `actshift/tuner/peft_patches.py`.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, cast


def after_import(package: str, then: str) -> None:
    """Import module `then` once `package` has been imported; immediately, if it already has been."""
    if package in sys.modules:
        import_module(then)
    else:
        sys.meta_path.insert(0, _PostImporter(package, then))


class _PostImporter:
    """Finds one package through the other finders, and loads it with the loader that they return.

    It stays until the package is executed, because libraries such as transformers only ask if peft can be found.
    """

    def __init__(self, package: str, then: str) -> None:
        self.package, self.then, self.searching = package, then, False
        self.loader: Any = None

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.package or self.searching:
            return None
        self.searching = True  # find_spec below calls this finder again
        try:
            spec = find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            self.loader, spec.loader = spec.loader, cast(Any, self)
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader  # importlib.resources and pickle expect the package's own
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        import_module(self.then)
