"""A command line on click: commands with groups of options, found and imported when they are used.

A command is a function ``run`` in a module of its own, with ``@command`` above it. Each of its
parameters is an option or an argument by its default, or a whole group of them by its type: a
frozen dataclass whose fields are options. So a command gets few values, and groups are shared::

    @dataclass(frozen=True, kw_only=True)
    class GridOptions:
        section: ClassVar = "Time grid"

        grid: Spacing | None = option("--grid", type=click.Choice(SPACINGS), help="Spacing.")
        sigma_min: float | None = option("--sigma-min", type=FINITE, help="Lowest noise level.")


    @command(examples="samplers show heun --steps 5")
    def run(*, name: str = argument("NAME"), grid: GridOptions) -> None:
        \"\"\"Print the tableau of a sampler.\"\"\"
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
from click.core import ParameterSource
from click.exceptions import Exit, NoSuchCommand
from click.shell_completion import shell_complete

from samplers.cli.common.errors import exit_code

_PARAMETER = "parameter"
_SETTINGS = {"max_content_width": 100, "show_default": True}

EXIT_CODES = "Exit codes: 0 done, 1 failed during the run, 2 impossible settings, 130 interrupted."


# ------------------------------------------------------------------------ options and arguments


class _Option(click.Option):
    """An option that knows its section of the help, and the options that it excludes."""

    def __init__(self, *args: Any, section: str, excludes: Sequence[str], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section, self.excludes = section, excludes


def option(*names: str, section: str = "", excludes: Sequence[str] = (), **settings: Any) -> Any:
    """An option, as the default of a command's parameter or of a field of a group.

    Args:
        names: as ``"--steps"``; the field or the parameter has the same name.
        section: where the help shows it; its group's section if it has one.
        excludes: names of options that can't be given beside it, such as ``"--seed"``.
        settings: as of :class:`click.Option`.
    """

    def build(own: str, default: dict[str, Any]) -> click.Parameter:
        chosen = settings | default
        return _Option([*names, own], section=section, excludes=excludes, **chosen)

    default = settings.get("default", () if settings.get("multiple") else None)
    return dataclasses.field(default=default, metadata={_PARAMETER: build, "section": section})


def argument(metavar: str, **settings: Any) -> Any:
    """A positional argument, as the default of a command's parameter or of a field of a group.

    Args:
        settings: as of :class:`click.Argument`.
    """

    def build(own: str, default: dict[str, Any]) -> click.Parameter:
        return click.Argument([own], metavar=metavar, **settings | default)

    return dataclasses.field(default=None, metadata={_PARAMETER: build})


def _parameters(
    declared: Mapping[str, Any], defaults: Mapping[str, object], section: str
) -> Iterator[click.Parameter]:
    """The parameters of click for fields of dataclasses, by name."""
    for name, field in declared.items():
        default = {"default": defaults[name]} if name in defaults else {}
        built = field.metadata[_PARAMETER](name, default)
        if isinstance(built, _Option):
            built.section = built.section or section
        yield built


# ------------------------------------------------------------------------------------- commands


def command(examples: str = "", **defaults: object) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function; its docstring is the help.

    Args:
        examples: shown below the options, line by line as they stand.
        defaults: in place of those that groups of options have, by the name of the field.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        signature = inspect.signature(function, eval_str=True)
        groups, params = dict[str, Any](), list[click.Parameter]()
        for name, own in signature.parameters.items():
            if isinstance(own.default, dataclasses.Field):
                params += _parameters({name: own.default}, defaults, "Options")
            else:
                groups[name] = own.annotation
                fields = {field.name: field for field in dataclasses.fields(own.annotation)}
                params += _parameters(fields, defaults, own.annotation.section)
        return Command(
            function.__name__,
            callback=_grouping(function, groups),
            params=params,
            help=function.__doc__,
            epilog=examples,
            context_settings=_SETTINGS,
        )

    return decorate


def _grouping(function: Callable[..., Any], groups: Mapping[str, Any]) -> Callable[..., Any]:
    """The function of single values, which builds the groups from them."""

    def call(**values: Any) -> Any:
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            values[name] = group(**{field: values.pop(field) for field in fields})
        return function(**values)

    return call


class Command(click.Command):
    """A command whose help shows its options in sections and its examples line by line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        given = {
            name: param
            for param in self.params
            if ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
            for name in param.opts
        }
        for name, param in given.items():
            for other in param.excludes if isinstance(param, _Option) else ():
                if other in given:
                    ctx.fail(f"{other} and {name} exclude each other; give one of them.")
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                section = param.section if isinstance(param, _Option) else "Help"
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lines(formatter, self.epilog)


def _write_lines(formatter: click.HelpFormatter, text: str | None) -> None:
    """Write a text as it stands, after an empty line."""
    if text:
        formatter.write(f"\n{text.strip()}\n")


# -------------------------------------------------------------------------------------- programs


class Program(click.Group):
    """A command line whose commands are modules of a package, imported when they are used.

    Args:
        name: of the program.
        package: the package with a module for each command, which has a ``run``.
        sections: the names of the commands by the heading of the overview that they stand under.
        purpose: what the program is for.
        tour: commands to begin with, shown below the overview line by line.
    """

    def __init__(
        self,
        name: str,
        package: str,
        sections: Mapping[str, Sequence[str]],
        *,
        purpose: str,
        tour: str,
    ) -> None:
        super().__init__(name, help=purpose, epilog=tour, context_settings=_SETTINGS)
        self.package, self.sections = package, sections
        self.no_args_is_help = False  # a missing command is an error like any other
        click.version_option(package_version(), message=f"{name} %(version)s")(self)

    @property
    def names(self) -> list[str]:
        return [name for names in self.sections.values() for name in names]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self.names

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.names:
            return None
        found: Command = import_module(f"{self.package}.{cmd_name.replace('-', '_')}").run
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.names and not name.startswith("-"):
            raise NoSuchCommand(name, possibilities=self.names, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in self.sections.items():
            found = {name: self.get_command(ctx, name) for name in names}
            with formatter.section(section):
                formatter.write_dl(
                    [(name, own.get_short_help_str(100)) for name, own in found.items() if own]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lines(formatter, f"{self.epilog}\n{EXIT_CODES}")

    def run(self, argv: Sequence[str]) -> int:
        """Run the command that the words ask for; returns the exit code.

        An error is one sentence on stderr, and never a traceback.
        """
        name = str(self.name)
        variable = f"_{name.upper()}_COMPLETE"
        if variable in os.environ:
            return shell_complete(self, {}, name, variable, os.environ[variable])
        return exit_code(name, lambda: self._invoke(argv))

    def _invoke(self, argv: Sequence[str]) -> int:
        try:
            with self.make_context(self.name, list(argv)) as context:
                return self.invoke(context) or 0
        except Exit as done:  # after --help and --version
            return done.exit_code


def package_version() -> str:
    """The version of the package that all three programs belong to."""
    try:
        return version("retrograde")
    except PackageNotFoundError:
        return "not installed"
