"""Families of one's own: classes that a person names, checked, and put into the table.

A name alone, as a run folder or a search.yaml holds it, imports nothing. `use_family` imports, and
it is called for what the person has named: with --family, or in Python.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from pawtune.models.errors import ModelError
from pawtune.models.families.family import Family
from pawtune.models.families.parameters import Parameter
from pawtune.models.families.table import BUILT_IN, OWN, OwnFamily, known_families
from pawtune.models.model_spec import ModelSpec

NAME_RULE = re.compile(r"[a-z][a-z0-9_]{0,39}")
MAIN = "__main__"
_NEEDED = [name for name in vars(Family) if not name.startswith("_")]


def use_family(family: str | type) -> str:
    """Makes a family known to this process, for as long as it lives.

    Args:
        family: the class; or its place, "package.module:Name", which is imported. A module in the
            current folder is found too, after those that are installed.

    Returns:
        Its place, as a configuration records it.

    Raises:
        ModelError: it cannot be imported, or is no family.

    Example:
        >>> use_family("nets:Separable")  # doctest: +SKIP
        'nets:Separable'
    """
    found = _import(family) if isinstance(family, str) else family
    place = place_of(found)
    made = _make(found, place)
    _check_names(made, place)
    add_families([found])
    return place


def add_families(classes: Iterable[type]) -> None:
    """Puts classes that another process has checked into this one's table."""
    for found in classes:
        place = place_of(found)
        for name in [name for name, own in OWN.items() if own.place == place]:
            del OWN[name]  # the same family, defined again
        made: Any = found()
        OWN[made.name] = OwnFamily(made, place)


def place_of(family: type) -> str:
    """Where a class stands: "package.module:Name"."""
    return f"{family.__module__}:{family.__qualname__}"


def code_of(place: str) -> Path:
    """The file, or the folder of the package, that code of one's own was imported from.

    Raises:
        ModelError: it was defined in a script or a notebook, which is no module.
    """
    top = sys.modules[place.partition(":")[0].partition(".")[0]]
    if top.__name__ == MAIN or not getattr(top, "__file__", None):
        raise ModelError(
            f"code of your own must be defined in a module to be sent elsewhere, received {place}: "
            "put it into a file"
        )
    file = Path(str(top.__file__))
    return file.parent if hasattr(top, "__path__") else file


def _import(place: str) -> type:
    found = import_place(place, "a family", "a class", "--family nets:Separable")
    if not isinstance(found, type):
        raise ModelError(f"a family must be a class, received {place!r}, a {type(found).__name__}")
    return found


def import_place(place: str, what: str, kind: str, example: str) -> Any:
    """What stands at a place, "package.module:Name", which a person has named.

    Args:
        place: The place; a module in the current folder is found after those that are installed.
        what: Noun for messages: "a family".
        kind: Kind of thing that must be there: "a class".
        example: An option that names one.

    Raises:
        ModelError: It cannot be imported.
    """
    module, colon, name = place.partition(":")
    if not (colon and module and name):
        raise ModelError(
            f"{what} of your own is named package.module:Name, received {place!r}; give for "
            f"example {example}"
        )
    here = str(Path.cwd())
    sys.path.append(here)  # last: nothing in the current folder takes the place of a library
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever a module may do when it is imported
        raise ModelError(
            f"{what} must be {kind} that can be imported, received {place!r}: "
            f"{type(error).__name__}: {str(error)[:300]}; run pawtune in the folder of its file"
        ) from error
    finally:
        sys.path.remove(here)
    return found


def _make(found: type, place: str) -> Family[Any]:
    missing = [name for name in _NEEDED if not hasattr(found, name)]
    if missing:
        raise ModelError(
            f"a family must have {', '.join(_NEEDED)}; {place} lacks {', '.join(missing)}"
        )
    made: Family[Any] = found()
    spec: Any = made.spec_type
    name: Any = made.name
    if not (isinstance(name, str) and NAME_RULE.fullmatch(name)):
        raise ModelError(
            f"a family's name must be lower-case letters, digits and '_', received {name!r} of "
            f"{place}"
        )
    if not (isinstance(spec, type) and issubclass(spec, ModelSpec)):
        raise ModelError(f"spec_type of {place} must be a subclass of ModelSpec, received {spec!r}")
    if spec.model_fields["family"].default != name:
        raise ModelError(
            f'{spec.__name__} of {place} must declare family: Literal["{name}"] = "{name}", '
            f"received the default {spec.model_fields['family'].default!r}"
        )
    return made


def _check_names(made: Family[Any], place: str) -> None:
    """Refuses names that another family has."""
    others = {n: o for n, o in known_families().items() if n not in OWN or OWN[n].place != place}
    if made.name in others:
        whose = "pawtune" if made.name in BUILT_IN else OWN[made.name].place
        raise ModelError(
            f"a family's name must be its own, received {made.name!r} of {place}, which is a "
            f"family of {whose}; give it another name"
        )
    taken: dict[str, Parameter] = {p.name: p for o in others.values() for p in o.parameters}
    for parameter in made.parameters:
        if not taken.get(parameter.name, parameter).means_the_same(parameter):
            raise ModelError(
                f"a parameter's name must have one meaning, received {parameter.name!r} of "
                f"{place}, which another family has; give it a prefix, "
                f"{made.name}_{parameter.name}"
            )
