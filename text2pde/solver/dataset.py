"""Data sets: many scenes simulated in parallel, one file each; files that exist are kept.

The workers are those of Dask: a local cluster of processes, or a cluster that is reached by the
address of its scheduler and sees the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from text2pde.data.clip import SUFFIX, Clip, read_header, save_clip
from text2pde.solver.meshing import DEFAULT_SIZES, MeshSizes
from text2pde.solver.simulation import (
    DEFAULT_RECORDING,
    DEFAULT_SMOKE_RECORDING,
    Recording,
    SmokeRecording,
    simulate,
    simulate_smoke,
)
from text2pde.subject import Scene


class Workers(NamedTuple):
    """Who simulates.

    Attributes:
        processes: on this machine; as many as it has cores if None.
        scheduler: the address of a Dask cluster instead, such as ``tcp://10.0.0.1:8786``.
    """

    processes: int | None = None
    scheduler: str | None = None


LOCAL = Workers()


class Simulator(NamedTuple):
    """How a scene becomes a clip.

    Attributes:
        run: a function that can be pickled.
        settings: of it as plain values, which are kept in the files.
    """

    run: Callable[[Any], Clip]
    settings: dict[str, Any]


def cylinder_simulator(
    recording: Recording = DEFAULT_RECORDING, sizes: MeshSizes = DEFAULT_SIZES
) -> Simulator:
    """Of flows past a cylinder."""
    settings = {"recording": asdict(recording), "sizes": sizes._asdict()}
    return Simulator(partial(simulate, recording=recording, sizes=sizes), settings)


def smoke_simulator(recording: SmokeRecording = DEFAULT_SMOKE_RECORDING) -> Simulator:
    """Of smoke."""
    return Simulator(partial(simulate_smoke, recording=recording), {"recording": asdict(recording)})


class DatasetReport(NamedTuple):
    """What became of the cases.

    Attributes:
        kept: files that existed.
        made: files that were simulated now.
        failed: error messages of the other cases, by the names of their files.
    """

    kept: int
    made: int
    failed: dict[str, str]


def case_path(folder: Path, number: int) -> Path:
    return folder / f"case-{number:05d}{SUFFIX}"


def simulate_dataset(
    scenes: Sequence[Scene],
    folder: Path,
    simulator: Simulator,
    workers: Workers = LOCAL,
    tick: Callable[[], object] = lambda: None,
) -> DatasetReport:
    """Simulate each scene into ``case-00000.safetensors`` and so on; files that exist are kept.

    Args:
        tick: called after every case, at once for those that exist.

    Raises:
        ValueError: if a file holds another scene, or was made with other settings, and without the
            packages of the extra `pde`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {case_path(folder, number): scene for number, scene in enumerate(scenes)}
    missing = {
        path: scene for path, scene in paths.items() if not _exists(path, scene, simulator.settings)
    }
    for _ in range(len(paths) - len(missing)):
        tick()
    failed: dict[str, str] = {}
    if missing:
        with _cluster(workers) as client:
            for path, error in _run(client, missing, simulator):
                tick()
                if error is not None:
                    failed[path.name] = error
    made = len(missing) - len(failed)
    return DatasetReport(len(paths) - len(missing), made, failed)


def _exists(path: Path, scene: Scene, settings: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    found, made_by = read_header(path)
    if found != scene:
        raise ValueError(
            f"{path} holds another scene than this family and seed have; take another folder."
        )
    if made_by != settings:
        raise ValueError(
            f"{path} holds a clip made with {made_by}, not with {settings}; take another folder."
        )
    return True


def _run(
    client: Any, missing: dict[Path, Scene], simulator: Simulator
) -> Iterator[tuple[Path, str | None]]:
    """Each case as it is completed, with the error message if it failed."""
    from distributed import as_completed

    jobs = {
        client.submit(_simulate_case, scene, path.absolute(), simulator, pure=False): path
        for path, scene in missing.items()
    }
    for job in as_completed(jobs):
        path = jobs[job]
        # An error of one case, or of its worker, must not stop the others.
        error = job.exception()
        if error is None and not path.exists():
            error = OSError("the worker wrote it elsewhere; all must see the same folder")
        yield path, None if error is None else " ".join(str(error).split())


def _simulate_case(scene: Scene, path: Path, simulator: Simulator) -> None:
    save_clip(simulator.run(scene), path, simulator.settings)


@contextmanager
def _cluster(workers: Workers) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ValueError(
            "Parallel simulations need the package dask; install it with "
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
