"""A command line on click: commands with groups of options, imported when they are used.

A command is a module with a function ``run``. Each of its parameters is an option or an argument by
its default, or a group of options by its type: a class with a field for each, whose bases are
groups, too. The help shows every group as a section::

    class GridOptions(Options, section="Time grid"):
        grid: Spacing | None = option(type=click.Choice(SPACINGS), help="Spacing of the grid.")


    class ShowOptions(GridOptions, section="Tableau"):
        name: str = argument("NAME", help="Name of a sampler.")
        json: bool = option(is_flag=True, help="Print JSON.")


    @command("Example:\\n  samplers show heun --grid karras")
    def run(options: ShowOptions) -> None:
        \"\"\"Print the tableau of a sampler.\"\"\"
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, dataclass_transform

import click
from click.core import ParameterSource
from click.exceptions import Exit
from click.shell_completion import shell_complete

from samplers.cli.common.errors import exit_code, is_main_process
from samplers.cli.common.output import refuse_existing
from samplers.cli.common.values import Output
from samplers.files import new_files

_DECLARED = "declared"
_SETTINGS = {"max_content_width": 100, "show_default": True}
_EXIT_CODES = "Exit codes: 0 done, 1 failed during the run, 2 impossible settings, 130 interrupted."

# ------------------------------------------------------------------------- options and arguments


class _Option(click.Option):
    """An option that knows its section of the help, and the options that it excludes."""

    def __init__(
        self, names: list[str], section: str, excludes: Sequence[str] = (), **settings: Any
    ) -> None:
        super().__init__(names, **settings)
        self.section, self.excludes = section, excludes

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default  # without the brackets of click
        return extra


class _Declared(NamedTuple):
    """A parameter as a field declares it: an option with its names, or an argument without."""

    names: tuple[str, ...] | None
    settings: dict[str, Any]

    def field(self) -> Any:
        several = self.settings.get("multiple") or self.settings.get("nargs", 1) != 1
        default = self.settings.get("default", () if several else None)
        return dataclasses.field(default=default, metadata={_DECLARED: self})

    def parameter(self, field: str, section: str) -> click.Parameter:
        if self.names is None:
            return click.Argument([field], **self.settings)
        names = self.names or (f"--{field.replace('_', '-')}",)
        return _Option([*names, field], **{"section": section, **self.settings})


def option(*names: str, **settings: Any) -> Any:
    """A field that is an option.

    Args:
        names: such as ``"--steps"``; made of the field's name if there are none.
        settings: as of :class:`click.Option`, and ``excludes``, names of options that can't be
            given beside it, and ``section`` of the help, if it is another than the group's. A
            ``show_default`` in words says what happens if the option is not given.
    """
    return _Declared(names, settings).field()


def argument(metavar: str, **settings: Any) -> Any:
    """A field that is a positional argument; ``settings`` are those of :class:`click.Argument`."""
    return _Declared(None, {"metavar": metavar, **settings}).field()


def changed(group: type[Options], field: str, **settings: Any) -> Any:
    """A field of another group with changed settings, such as another default."""
    declared: _Declared = group.__dataclass_fields__[field].metadata[_DECLARED]
    shown = {"show_default": True} if "default" in settings else {}
    return declared._replace(settings=declared.settings | shown | settings).field()


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """A group of options, or all options of a command: a frozen dataclass, see the module.

    Args:
        section: the heading of the help that the fields declared here stand under; that of the
            first base if there is none.
    """

    section: ClassVar[str] = "Options"

    def __init_subclass__(cls, section: str | None = None) -> None:
        cls.section = section or cls.section
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def sections(cls) -> dict[str, str]:
        """The section of each field, in the order of the help: its own, then those of its bases."""
        bases = [base for base in cls.__bases__ if issubclass(base, Options)]
        inherited = {name: own for base in bases for name, own in base.sections().items()}
        own = [field.name for field in dataclasses.fields(cls) if field.name not in inherited]
        return dict.fromkeys(own, cls.section) | inherited


def _parameters(declared: Mapping[str, Any], sections: Mapping[str, str]) -> list[click.Parameter]:
    """The arguments in the order of the fields, then the options in that of the sections."""
    built = {
        name: field.metadata[_DECLARED].parameter(name, sections[name])
        for name, field in declared.items()
    }
    arguments = [param for param in built.values() if isinstance(param, click.Argument)]
    return arguments + [built[name] for name in sections if built[name] not in arguments]


# ------------------------------------------------------------------------------------- commands


def command(
    examples: str = "", *, single_process: bool = False
) -> Callable[[Callable[..., int | None]], Command]:
    """Make a command of a function; its docstring is the help.

    A file that it will write must not exist, unless it has ``--overwrite`` and that is given.

    Args:
        examples: shown below the options, line by line as they stand.
        single_process: whether only one of the processes that ``accelerate launch`` started runs
            it, and the others end at once.
    """

    def decorate(function: Callable[..., int | None]) -> Command:
        groups, params = dict[str, type[Options]](), list[click.Parameter]()
        for name, own in inspect.signature(function, eval_str=True).parameters.items():
            if isinstance(own.default, dataclasses.Field):
                params += _parameters({name: own.default}, {name: Options.section})
            else:
                groups[name] = own.annotation
                params += _parameters(_fields(own.annotation), own.annotation.sections())

        def call(**values: Any) -> int | None:
            if single_process and not is_main_process():
                return 0
            named = (values[str(own.name)] for own in params if isinstance(own.type, Output))
            new = [] if values.get("overwrite") else [path for path in named if path]
            refuse_existing(new)
            for name, group in groups.items():
                values[name] = group(**{field: values.pop(field) for field in _fields(group)})
            with new_files(new):
                return function(**values)

        return Command(
            function.__name__,
            callback=call,
            params=params,
            help=function.__doc__,
            epilog=examples,
            context_settings=_SETTINGS,
        )

    return decorate


def _fields(group: type[Options]) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(group)}


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
                formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lines(formatter, self.epilog)


def _write_lines(formatter: click.HelpFormatter, text: str | None) -> None:
    """Write a text as it stands, after an empty line."""
    lines = (text or "").strip("\n")
    formatter.write(f"\n{lines}\n" if lines else "")


# -------------------------------------------------------------------------------------- programs


class _NoSuchCommand(click.UsageError):
    """A mistyped command; ``possibilities`` are the nearest ones, as in ``click.NoSuchOption``."""

    def __init__(self, name: str, names: Sequence[str], ctx: click.Context) -> None:
        super().__init__(f"No such command {name!r}.", ctx)
        self.possibilities = difflib.get_close_matches(name, names)


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
        purpose: str,
        tour: str,
    ) -> None:
        super().__init__(name, help=purpose, epilog=tour, context_settings=_SETTINGS)
        self.package, self.sections = package, sections
        self.no_args_is_help = False  # a missing command is an error like any other
        click.option(
            "--version",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        )(self)

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
            raise _NoSuchCommand(name, self.names, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, names in self.sections.items():
            found = {name: self.get_command(ctx, name) for name in names}
            with formatter.section(section):
                formatter.write_dl(
                    [(name, own.get_short_help_str(100)) for name, own in found.items() if own]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lines(formatter, f"{self.epilog}\n{_EXIT_CODES}")

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


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"{ctx.info_name} {package_version()}")
        ctx.exit()


def package_version() -> str:
    """The version of the package that all three programs belong to."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("retrograde")
    except PackageNotFoundError:
        return "not installed"
