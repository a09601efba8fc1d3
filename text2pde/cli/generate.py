"""``text2pde generate``: a clip from a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH
from text2pde.cli.common import OneClipOptions, generate_one

if TYPE_CHECKING:
    from text2pde.pipeline import Request, Text2PDEPipeline

_EXAMPLES = """\
Examples:
  text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 120" \\
      --output street.gif
  text2pde generate "A cylinder of diameter 9 cm at x = 0.3 m, y = 19 cm; a speed of 1.3 m/s" \\
      --output flow.vtu --animation flow.gif
  text2pde generate "radius 5 cm, Re = 80" --mesh mesh.msh --sampler dpmpp-2m --steps 20 \\
      --output flow.safetensors
"""


class GenerateOptions(OneClipOptions):
    """A prompt, and the mesh of its solution."""

    prompt: str = argument("PROMPT", help="What to generate.")
    mesh: Path | None = option(
        type=PATH,
        help="Mesh of the domain, in the format of gmsh, VTK or another of meshio.",
        show_default="a mesh by gmsh",
    )


@command(_EXAMPLES, single_process=True)
def run(options: GenerateOptions) -> None:
    """Generate a solution from a prompt.

    A prompt for the bundled model states the size of a cylinder, and a Reynolds number or a mean
    inlet velocity. The cylinder stands at (0.3, 0.2) m unless the prompt says where. Reynolds
    numbers are from 40 to 160, radii from 4 to 6 cm, x from 0.25 to 0.4 m, y from 0.17 to 0.24 m.

    A prompt for a model of smoke states a radius and a buoyancy, as in "smoke of radius 4 m and
    buoyancy 0.4 m/s^2".
    """

    def request(pipe: Text2PDEPipeline) -> Request:
        from text2pde.data.mesh_files import read_mesh
        from text2pde.pipeline import Request

        scene = pipe.subject.read(options.prompt)
        mesh = None if options.mesh is None else read_mesh(options.mesh, scene)
        return Request(scene, options.prompt, mesh)

    generate_one(options, {"prompt": options.prompt}, request)
