"""Turn numbers, names and lists into HTML. Every number on a page names the file and the key that it comes from."""

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
    """Format a number as text. Negative numbers have a minus sign, not a hyphen.

    Args:
        value: The number.
        form: The name of a format in `FORMATS`.
    """
    return format_number(value, form).replace("-", "\N{MINUS SIGN}")


def cite(metric: Metric, form: str) -> Markup:
    """Return a number as an HTML `data` element.

    The element shows the rounded number. Its attributes hold the exact value, the file and the key.

    Args:
        metric: The number. If the number is not from a metrics file, the key is a path of names and positions, joined by `/`.
        form: The name of a format in `FORMATS`.
    """
    return NUMBER.format(
        value=repr(metric.value), file=metric.file, key=metric.key, format=form, text=typeset(metric.value, form)
    )


def cite_interval(estimate: Estimate, form: str, unit: str = "") -> Markup:
    """Return an estimate as `value [low, high]`. Each of the three numbers is a `data` element, as in `cite`.

    Args:
        estimate: The estimate.
        form: The name of a format in `FORMATS`.
        unit: The text after the value, such as `%`.
    """
    value, low, high = (cite(metric, form) for metric in estimate.metrics)
    return Markup("{}{} [{}, {}]").format(value, unit, low, high)


def named(name: str) -> Markup:
    """Return a name as an HTML `span` element with the class `name`.

    A name may contain digits. The class separates these digits from the numbers on the page. Only numbers must name the file
    that they come from.
    """
    return Markup('<span class="name">{}</span>').format(name)


def listed(names: Sequence[str | Markup]) -> Markup:
    """Return names as a list in a sentence, such as `a, b and c`."""
    parts = [named(name) if not isinstance(name, Markup) else name for name in names]
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])


def template_environment(*packages: str) -> Environment:
    """Return a Jinja environment with the templates of the given packages. The environment escapes all values."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
