"""What the search varies: a domain for each parameter of the families, checked by their rules."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from pawtune.models.families.domains import (
    Choices,
    Domain,
    FloatDomain,
    FloatRange,
    IntDomain,
    IntRange,
    Strict,
    corners,
)
from pawtune.models.families.family import Family
from pawtune.models.families.parameters import Parameter
from pawtune.models.families.table import BUILT_IN
from pawtune.search.config.settings import Setting, setting_of

_DOMAINS: Mapping[type, Any] = {int: IntDomain, float: FloatDomain, object: Choices}


def parameters_of(families: Iterable[Family[Any]]) -> dict[str, Parameter]:
    """The parameters of several families by name, each once."""
    return {parameter.name: parameter for family in families for parameter in family.parameters}


def space_fields(families: Mapping[str, Family[Any]]) -> dict[str, Any]:
    """Fields of a space, as pydantic takes them: name to (annotation, default)."""
    fields = {}
    for name, parameter in parameters_of(families.values()).items():
        users = [family for family, owner in families.items() if name in parameters_of([owner])]
        meaning = parameter.meaning
        if len(users) < len(families):  # a parameter of some families says of which
            meaning = f"{', '.join(users)}: {meaning[0].lower()}{meaning[1:]}"
        setting = Setting(parameter.accepts, meaning, parameter.check)
        fields[name] = Annotated[_DOMAINS[parameter.kind], setting], parameter.default
    return fields


class _Space(Strict):
    """Rules for every space."""

    def domain(self, parameter: str) -> Domain:
        """The domain of a parameter by its name."""
        domain: Domain = getattr(self, parameter)
        return domain

    def domains(self) -> dict[str, Domain]:
        """The domain of every parameter, by name."""
        return {name: self.domain(name) for name in type(self).model_fields}

    @model_validator(mode="before")
    @classmethod
    def _complete_ranges(cls, given: Any) -> Any:
        """{high: 4} changes the default range's end: what is left out keeps its default."""
        if not isinstance(given, dict):
            return given
        return {name: _complete(value, cls.model_fields.get(name)) for name, value in given.items()}

    @field_validator("*")
    @classmethod
    def _models_can_have_it(cls, domain: Domain, info: ValidationInfo) -> Domain:
        assert info.field_name is not None
        setting = setting_of(cls.model_fields[info.field_name])
        assert setting.check is not None
        for value in corners(domain):
            try:
                setting.check(value)
            except ValidationError as error:
                raise ValueError(_why(error, value, setting.accepts)) from None
        return domain


def _why(error: ValidationError, value: Any, accepts: str) -> str:
    """A rule of a family's own says itself what is wrong; pydantic's own say the rule alone."""
    own = error.errors()[0].get("ctx", {}).get("error")
    if isinstance(own, ValueError):
        return str(own)
    return f"no model may have {value!r} here; give {accepts}"


def _complete(given: Any, field: FieldInfo | None) -> Any:
    default = field.default if field else None
    if isinstance(given, dict) and isinstance(default, IntRange | FloatRange):
        return given if "choices" in given else {**default.model_dump(), **given}
    return given


_BuiltIn: Any = create_model("_BuiltIn", __base__=_Space, **space_fields(BUILT_IN))


class SpaceConfig(_BuiltIn):  # its fields come from the families
    """What the search varies. Each is a range, a list of choices, or one fixed value."""


@cache
def space_type(own: tuple[Family[Any], ...]) -> type[SpaceConfig]:
    """The space of the built-in families and of some of one's own."""
    if not own:
        return SpaceConfig
    families = {**BUILT_IN, **{family.name: family for family in own}}
    fields = space_fields(families).items()
    new = {name: field for name, field in fields if name not in SpaceConfig.model_fields}
    return create_model("SpaceConfig", __base__=SpaceConfig, **new)
