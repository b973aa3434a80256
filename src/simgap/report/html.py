"""Numbers, names and lists as HTML. Every number names the file and the key that it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simgap.core.text import format_number
from simgap.store.estimates import Estimate, Metric

NUMBER = Markup(
    '<data value="{value}" data-file="{file}" data-key="{key}" data-format="{format}" title="{file}: {key}">{text}</data>'
)


def typeset(value: float, form: str) -> str:
    """Return a number as text, see `format_number`, with a minus sign in place of the hyphen."""
    return format_number(value, form).replace("-", "\N{MINUS SIGN}")


def cite(metric: Metric, form: str) -> Markup:
    """Return a number as a `data` element: text for the reader, and the exact value with its file and key.

    Args:
        metric: The number. Outside metrics files its key is a path of keys and positions, joined by `/`.
        form: A key of `FORMATS`.
    """
    return NUMBER.format(
        value=repr(metric.value), file=metric.file, key=metric.key, format=form, text=typeset(metric.value, form)
    )


def cite_interval(estimate: Estimate, form: str, unit: str = "") -> Markup:
    """Return an estimate as `value [low, high]`, all three cited.

    Args:
        estimate: The estimate.
        form: A key of `FORMATS`.
        unit: Text after the value, such as `%`.
    """
    value, low, high = (cite(metric, form) for metric in estimate.metrics)
    return Markup("{}{} [{}, {}]").format(value, unit, low, high)


def named(name: str) -> Markup:
    """Return a name of the study. It is marked as a name because it may contain digits."""
    return Markup('<span class="name">{}</span>').format(name)


def listed(names: Sequence[str | Markup]) -> Markup:
    """Join names as in a sentence: `a, b and c`."""
    parts = [named(name) if not isinstance(name, Markup) else name for name in names]
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])


def template_environment(*packages: str) -> Environment:
    """Return a Jinja environment with the templates of some packages. It escapes all values."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
