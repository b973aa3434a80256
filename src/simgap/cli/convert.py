"""Define the commands of `simgap convert`. There is one command for each public dataset, and two for images of users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simgap.core.errors import SimgapError
from simgap.data.benchmarks import read_templates
from simgap.data.convert.imagenet import PUBLIC
from simgap.params.checks import NEEDS_LICENCE
from simgap.stage.command import PATH, reports_errors

if TYPE_CHECKING:
    from simgap.data.convert.image_set import ImageSet

REFERENCE = "imagenet-train"
ALLOW_INCOMPLETE = click.option(
    "--allow-incomplete", is_flag=True, help="Accept missing images, and leave out images that cannot be used."
)
TEMPLATES = click.option(
    "--templates",
    type=PATH,
    help="File with one prompt in each line. {c} stands for the class name.  [default: a photo of a {c}]",
)


def _prompts(templates: Path | None) -> tuple[str, ...]:
    return read_templates(templates) if templates else ("a photo of a {c}",)


def _convert(
    source: Path, out: Path, find: Callable[[], ImageSet], allow_incomplete: bool, reference: bool = False
) -> None:
    """Convert images, and print how many images were converted and how many were left out.

    Args:
        source: Folder or file of the images.
        out: Folder to write.
        find: Function that finds the images.
        allow_incomplete: Whether to leave out images that cannot be used. Otherwise, such an image is an error.
        reference: Whether the function writes a reference. Otherwise, it writes a benchmark.
    """
    from simgap.data.convert.write import check_out, write_benchmark, write_reference

    check_out(source, out)
    write = write_reference if reference else write_benchmark
    try:
        found = find()
        accounting = write(found, out, allow_incomplete=allow_incomplete)
    except OSError as error:
        raise SimgapError(f"{error.filename or out}: {error.strerror}") from None
    left_out = accounting.dropped.total()
    line = f"{out}: {accounting.read - left_out} images of {len(found.classnames)} classes"
    if left_out:
        line += f"; {left_out} left out ({', '.join(sorted(accounting.dropped))})"
    if found.ignored:
        line += f"; {found.ignored} other files or folders ignored"
    click.echo(line)


@click.group()
def convert() -> None:
    """Convert downloaded datasets, or your own images, to benchmarks and references.

    If a conversion was interrupted, the same command continues the conversion. See docs/bring-data.md.
    """


def _add_public(name: str) -> None:
    title = f"{PUBLIC[name].title}, {PUBLIC[name].images:,} images"
    what = "the reference" if name == REFERENCE else "a benchmark"

    @convert.command(name, short_help=title, help=f"Convert {title}, from one folder for each class to {what}.")
    @click.argument("source", type=PATH)
    @click.argument("out", type=PATH)
    @ALLOW_INCOMPLETE
    @reports_errors
    def command(source: Path, out: Path, allow_incomplete: bool) -> None:
        from simgap.data.convert.public import find_imagenet

        def find() -> ImageSet:
            return find_imagenet(PUBLIC[name], source, allow_incomplete=allow_incomplete)

        _convert(source, out, find, allow_incomplete, reference=name == REFERENCE)


for _name in PUBLIC:
    _add_public(_name)


@convert.command(short_help="ObjectNet, images of the classes that ImageNet has too")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option("--accept-licence", is_flag=True, help="Confirm that you read ObjectNet's licence and comply with it.")
@ALLOW_INCOMPLETE
@reports_errors
def objectnet(source: Path, out: Path, accept_licence: bool, allow_incomplete: bool) -> None:
    """Convert the images of the classes that ObjectNet shares with ImageNet.

    SOURCE is the downloaded folder with the subfolders images and mappings. ObjectNet's licence forbids tuning a model on
    ObjectNet, and posting its images without the red border. This command cuts off the border.
    """
    from simgap.data.convert.objectnet import find_objectnet

    if not accept_licence:
        raise SimgapError(
            f"--accept-licence: is not given; {NEEDS_LICENCE['objectnet']}, or posting its images without the red "
            "border; this command cuts off the border; add --accept-licence if you comply with the licence"
        )
    if out.name not in NEEDS_LICENCE:
        raise SimgapError(
            f"{out}: must be called objectnet, since params.yaml requires the licence of a benchmark with this name"
        )
    _convert(source, out, lambda: find_objectnet(source, allow_incomplete=allow_incomplete), allow_incomplete)


@convert.command("image-folder", short_help="your own images, in one folder for each class")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@TEMPLATES
@ALLOW_INCOMPLETE
@reports_errors
def image_folder(source: Path, out: Path, templates: Path | None, allow_incomplete: bool) -> None:
    """Convert a tree with one folder for each class to a benchmark.

    The command also searches the subfolders of a class folder. The name of a class is the name of its folder, with spaces in
    place of underscores.
    """
    from simgap.data.convert.custom import find_in_folders

    prompts = _prompts(templates)
    _convert(source, out, lambda: find_in_folders(source, prompts), allow_incomplete)


@convert.command("csv", short_help="your own images, listed in a CSV file")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option("--classnames", type=PATH, help="File with one class name in each line, in the order of the labels.")
@TEMPLATES
@ALLOW_INCOMPLETE
@reports_errors
def from_csv(source: Path, out: Path, classnames: Path | None, templates: Path | None, allow_incomplete: bool) -> None:
    """Convert the images that a CSV file lists to a benchmark.

    The file has the columns path and classname, or path and label. Paths are relative to the folder of the file. Labels count
    from 0. A file with labels needs --classnames.
    """
    from simgap.data.convert.custom import find_in_csv

    prompts = _prompts(templates)
    _convert(source, out, lambda: find_in_csv(source, classnames, prompts), allow_incomplete)
