# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Modules that stand in for an engine's compiled extensions and its server, so that its loaders
import.

None of them takes part in loading: a call of a stand-in that the engine would have needed a result
of gives another stand-in, and the first use as a number or a tensor raises.
"""

import importlib.abc
import importlib.machinery
import sys
import types


class _Anything(type):
    """Class of stand-in classes: every attribute of one is another."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _thing(f"{cls.__name__}.{name}")

    def __or__(cls, other):
        return object

    def __ror__(cls, other):
        return object

    def __getitem__(cls, item):
        return cls

    def __iter__(cls):
        return iter(())


def _thing(name):
    """A class that can be called, inherited from, subscripted and used as a decorator."""
    def new(cls, *arguments, **options):
        # A decorator leaves the function as it is.
        if len(arguments) == 1 and not options and callable(arguments[0]):
            return arguments[0]
        return object.__new__(cls)

    def attribute(self, attribute_name):
        if attribute_name.startswith("__"):
            raise AttributeError(attribute_name)
        return _thing(f"{name}.{attribute_name}")

    def schema(cls, source, handler):
        return {"type": "any"}

    return _Anything(name, (), {
        "__get_pydantic_core_schema__": classmethod(schema), "__new__": new,
        "__init__": lambda self, *a, **k: None, "__getattr__": attribute,
        "__call__": lambda self, *a, **k: _thing(name)()})


class _Module(types.ModuleType):
    """A module that has every name."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        thing = _thing(name)
        setattr(self, name, thing)
        return thing


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the listed modules, and everything below them, wherever they are not installed."""

    def __init__(self, names):
        self._names = set(names)
        self.used = set()

    def install(self):
        """Behind every other finder: what is installed comes first."""
        sys.meta_path.append(self)

    def replace(self, *names):
        """Stand-ins in the place of modules that are there but cannot be imported."""
        for name in names:
            sys.modules[name] = self.create_module(importlib.machinery.ModuleSpec(name, self))

    def find_spec(self, fullname, path=None, target=None):
        parts = fullname.split(".")
        if not any(".".join(parts[:end]) in self._names for end in range(1, len(parts) + 1)):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        self.used.add(spec.name)
        return _Module(spec.name)

    def exec_module(self, module):
        """Nothing to run."""


class Operators:
    """Operators of a compiled extension: there, and not to be called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*arguments, **options):
            if "support" in name:
                return False
            raise RuntimeError(f"a kernel was called: {name}")
        operator.default = operator
        return operator
