"""Lets Python import from ComfyUI's directory although it may not list it.

Python looks for modules in the list of a directory. The one of ComfyUI also holds what its owner
made, so users' engines must not see it; asking for single files is allowed.
"""

import importlib.machinery
import importlib.util
import os
import sys

ROOT = os.environ["SENTINEL_COMFYUI"]


class First:
    """Where ComfyUI's directory comes first, its modules do."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None and sys.path and sys.path[0] == ROOT:
            return find(name)
        return None


class Last:
    """Otherwise they come after all others, as do directories without an `__init__.py`."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is not None or ROOT not in sys.path:
            return None
        directory = os.path.join(ROOT, name)
        spec = find(name)
        if spec is None and os.path.isdir(directory):
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [directory]
        return spec


def find(name):
    directory = os.path.join(ROOT, name)
    package = os.path.join(directory, "__init__.py")
    if os.path.isfile(package):
        return importlib.util.spec_from_file_location(
            name, package, submodule_search_locations=[directory]
        )
    module = directory + ".py"
    return importlib.util.spec_from_file_location(name, module) if os.path.isfile(module) else None


sys.meta_path.insert(sys.meta_path.index(importlib.machinery.PathFinder), First)
sys.meta_path.append(Last)

# Another file of this name may be there, and would have been run but for this one.
OWN = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != OWN]
other = importlib.machinery.PathFinder.find_spec("sitecustomize")
if other is not None and other.loader is not None:
    other.loader.exec_module(importlib.util.module_from_spec(other))
