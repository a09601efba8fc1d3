"""Many flows, by many workers: one file a case, and what is done is not done again.

The workers are those of Dask: a local cluster of processes, or the cluster behind the address of a
scheduler, whose workers see the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from text2pde.flows.clip import SUFFIX, Clip, read_flow, save_clip
from text2pde.flows.simulate import CLIP, Recording, simulate
from text2pde.flows.smoke import SMOKE, SmokeRecording, simulate_smoke
from text2pde.scene import Scene
from text2pde.solver.meshing import DEFAULT, Sizes


class Workers(NamedTuple):
    """Who simulates.

    Attributes:
        processes: on this machine; as many as there are cores if None.
        scheduler: the address of a cluster, such as ``tcp://10.0.0.1:8786``, in their place.
    """

    processes: int | None = None
    scheduler: str | None = None


HERE = Workers()


class Maker(NamedTuple):
    """How a clip is made.

    Attributes:
        make: a function of a flow that can be sent to workers. settings: of it, as plain values,
            which a file keeps.
    """

    make: Callable[[Any], Clip]
    settings: dict[str, Any]


def channel_maker(recording: Recording = CLIP, sizes: Sizes = DEFAULT) -> Maker:
    """Of flows past cylinders."""
    settings = {"recording": asdict(recording), "sizes": sizes._asdict()}
    return Maker(partial(simulate, recording=recording, sizes=sizes), settings)


def smoke_maker(recording: SmokeRecording = SMOKE) -> Maker:
    """Of smoke."""
    return Maker(partial(simulate_smoke, recording=recording), {"recording": asdict(recording)})


class Outcome(NamedTuple):
    """What became of the cases: how many were kept from before and made now, and why others
    failed, by their files."""

    kept: int
    made: int
    failed: dict[str, str]


def case_path(folder: Path, number: int) -> Path:
    return folder / f"case-{number:05d}{SUFFIX}"


def generate(
    flows: Sequence[Scene],
    folder: Path,
    maker: Maker,
    workers: Workers = HERE,
    tick: Callable[[], object] = lambda: None,
) -> Outcome:
    """Simulate each flow into ``case-00000.safetensors`` and so on, but for those that are there.

    Args:
        tick: called after every case, at once for those that are kept.

    Raises ValueError if a file holds another flow than it would, or was made with other settings,
    and without the packages of the extra `pde`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {case_path(folder, number): flow for number, flow in enumerate(flows)}
    missing = {
        path: flow for path, flow in paths.items() if not _is_made(path, flow, maker.settings)
    }
    for _ in range(len(paths) - len(missing)):
        tick()
    failed: dict[str, str] = {}
    if missing:
        with _cluster(workers) as client:
            for path, why in _run(client, missing, maker):
                tick()
                if why is not None:
                    failed[path.name] = why
    made = len(missing) - len(failed)
    return Outcome(len(paths) - len(missing), made, failed)


def _is_made(path: Path, flow: Scene, settings: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    found, made_by = read_flow(path)
    if found != flow:
        raise ValueError(
            f"{path} holds another flow than this family and seed have there; take another folder."
        )
    if made_by != settings:
        raise ValueError(
            f"{path} holds a clip made with {made_by}, not with {settings}; take another folder."
        )
    return True


def _run(
    client: Any, missing: dict[Path, Scene], maker: Maker
) -> Iterator[tuple[Path, str | None]]:
    """Each case as it is done, and why it failed, if it did."""
    from distributed import as_completed

    jobs = {
        client.submit(_make, flow, path.absolute(), maker, pure=False): path
        for path, flow in missing.items()
    }
    for job in as_completed(jobs):
        path = jobs[job]
        # Whatever goes wrong with one case, or with its worker, is no reason to stop the others.
        error = job.exception()
        if error is None and not path.exists():
            error = OSError("the worker wrote it elsewhere; all must see the same folder")
        yield path, None if error is None else " ".join(str(error).split())


def _make(flow: Scene, path: Path, maker: Maker) -> None:
    save_clip(maker.make(flow), path, maker.settings)


@contextmanager
def _cluster(workers: Workers) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ValueError(
            "Simulations are spread by the package dask; install it with "
            "pip install 'retrograde[pde]'."
        ) from error
    if workers.scheduler is not None:
        try:
            client = Client(workers.scheduler, timeout=20)
        except (OSError, ValueError) as error:
            raise ValueError(f"No scheduler answers at {workers.scheduler} ({error}).") from error
        with client:
            yield client
        return
    local = LocalCluster(
        n_workers=workers.processes, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    )
    with local, Client(local) as client:
        yield client
