"""What the commands say of themselves: help, examples, and how quickly it comes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.cli.common.options import MAX_NFE, STEPS, TOLERANCE
from samplers.cli.decode import DecodeOptions
from samplers.cli.encode import EncodeOptions
from samplers.cli.likelihood import LikelihoodOptions
from samplers.cli.program import PROGRAM
from samplers.cli.sample import SampleOptions
from tests.commands import parsed, shown_commands

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "diffusers", "transformers", "accelerate", "PIL", "scipy", "matplotlib")


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def help_of(*words: str) -> str:
    """What a fresh process says, after whatever heavy it has imported for that."""
    code = (
        "import sys; from samplers.cli import main; "
        f"code = main({[*words, '--help']!r}); "
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    return run(code).stdout


@pytest.mark.parametrize("name", ["", *PROGRAM.names])
def test_help_imports_nothing_heavy(name: str) -> None:
    out = help_of(*name.split())
    assert out.startswith(f"Usage: samplers {name}".rstrip())
    assert out.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            "sample assets/digits --stps 3 --output x.png",
            "No such option '--stps'; did you mean '--steps'?",
        ),
        ("sample assets/digits --output x.jpg", "name it .png"),
        ("sample assets/digits --output README.md/x.png", "is a file"),
        ("sample assets/digit --output x.png", "no such folder"),
        ("sample assets/digits --output x.png --trajectory x.avi", "name it .gif"),
        ("sample assets/digits --output x.png --device tpu", "must be auto, cpu"),
        ("compare assets/digits --nfe 5,5 --output x.png", "lists one twice"),
        ("inpaint assets/digits x.png --mask y.png --output z", "NAME.png"),
        ("sharpen assets/digits x.png --output y.png", "give --downsampled or --blurred"),
        ("restore assets/digits x.png --output y.png", "does not restore any"),
        ("likelihood assets/digit x.png", "no such folder"),
        ("encode assets/digits x.png --output codes.pt", "NAME.safetensors"),
        ("decode assets/digits x.safetensors --output y.jpg", "written as PNG"),
        ("interpolate assets/digits --seeds 1 --output y.png", "one seed"),
    ],
)
def test_what_is_mistyped_is_answered_at_once(words: str, why: str) -> None:
    code = (
        "import sys; from samplers.cli import main; "
        f"main({words.split()!r}); print('torch' in sys.modules)"
    )
    done = run(code)
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", PROGRAM.names)
def test_every_option_explains_itself(name: str) -> None:
    command = PROGRAM.get_command(None, name)
    assert command is not None
    context = click.Context(command, info_name=name)
    for param in command.get_params(context):
        text = param.to_info_dict()["help"]
        assert text.endswith("."), f"the help of {param.name} is {text!r}"


def test_the_tour_and_the_examples_are_commands_that_exist() -> None:
    commands = [PROGRAM.get_command(None, name) for name in PROGRAM.names]
    texts = [own.epilog for own in (PROGRAM, *commands) if own is not None]
    shown = [command for text in texts if text for command in shown_commands(text)]
    assert len(shown) >= 20
    for command in shown:
        parsed(command)


def test_the_page_shows_commands_that_exist() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    shown = shown_commands(blocks)
    assert len(shown) >= 15
    for command in shown:
        parsed(command)


@pytest.mark.parametrize("page", ["which_sampler", "cli", "diffusers"])
def test_pages_name_the_defaults(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert f"`{DEFAULT_SAMPLER}`" in text
    assert f"`{DEFAULT_SPACING}`" in text


def test_defaults_are_those_of_the_library() -> None:
    """Which the command line can't read from it, since that takes seconds."""
    from samplers.checkpoint import Recipe
    from samplers.probability_flow import codes, integration, likelihood

    recipe, adaptive = Recipe(), integration.DEFAULT
    sample = SampleOptions()
    assert (recipe.sampler, recipe.guidance_rescale) == (DEFAULT_SAMPLER, sample.guidance_rescale)
    assert (recipe.steps, adaptive.rtol, adaptive.max_nfe) == (STEPS, TOLERANCE, MAX_NFE)
    for options, default in (
        (EncodeOptions(), codes.DEFAULT),
        (DecodeOptions(), codes.DEFAULT),
        (LikelihoodOptions(), likelihood.DEFAULT),
    ):
        assert (options.tolerance, options.max_nfe) == (default.rtol, default.max_nfe)


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("module", ["click", "torch"])
def test_an_interrupt_during_the_imports_is_one_line(module: str, signal: str) -> None:
    code = (
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.{signal})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from samplers.cli import main\n"
        "print(main(['list']))"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("130\n", "samplers: error: Interrupted.\n")
