"""Several processes, on one machine or on several, that train one network together, by JAX.
Each runs the same command. All of them compute; the first alone reads what is there, prints and writes, and tells the
others what it found: `from_first`."""

import ctypes
import itertools
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from .devices import share

T = TypeVar("T")
# In which variable the number of processes is: Keras's own; that of srun and that of mpirun, which JAX knows, too.
N_PROCESSES = ("KERAS_DISTRIBUTION_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
ALIVE_SECONDS = 2  # between two signs of life of a process
DEAD_SECONDS = 25  # without one, a process counts as dead; JAX itself waits 100 s
WAIT_SECONDS = 6 * 3600  # at most, for the first process, which may have to download a data set
FILE_SECONDS = 60  # until a file that another machine has written is seen on a shared disk
_calls = itertools.count()  # of `from_first`: the same number in each process
_told: list[str] = []  # errors that all processes raise
_kept: list = []  # what the operating system calls must not be freed


def n_wanted() -> int:
    """How many processes the environment says that there are. Raises ValueError if that is no number."""
    for name in N_PROCESSES:
        if found := os.environ.get(name):
            if not found.isdecimal():
                raise ValueError(f"{name}: found {found!r}, expected the number of processes")
            return int(found)
    return 1


def join() -> None:
    """Wait for the other processes that the environment names, if there are any. Call it before anything is computed.
    All but the first print nothing from now on. If one dies, the others end with exit code 1 and a sentence that names
    it. Raises ValueError where Keras's backend can't do that, and RuntimeError if the first process is not found."""
    if n_wanted() == 1:
        return
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(f"{n_wanted()} processes: only JAX trains in several; set KERAS_BACKEND=jax in each")
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.utils.set_random_seed(0)  # or Keras would let the processes agree on a seed, and Gloo print what it does
    keras.distribution.initialize()
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _end_because_of(0 if _first_is_gone() else None))
    _kept.append(handler)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)  # if the first process dies, JAX aborts the others at once
    threading.Thread(target=_watch, daemon=True).start()
    if jax.process_index():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries write there, too


def is_first() -> bool:
    """Whether this process is the one that writes and prints; true where there is only one."""
    return share().process == 0


def from_first(make: Callable[[], T]) -> T:
    """make() of the first process, in all of them; the others wait for it. Each must call this in the same order.
    The result must be picklable. If make raises, the first raises that error, and the others RuntimeError."""
    if share().n_processes == 1:
        return make()
    key, client = f"unet_helpers/call/{next(_calls)}", _state().client
    if is_first():
        result = error = None
        try:
            result = make()
            return result
        except Exception as found:
            error = str(found) or type(found).__name__
            _told.append(error)
            raise
        finally:
            client.key_value_set_bytes(key, pickle.dumps((result, error)))
    try:
        result, error = pickle.loads(client.blocking_key_value_get_bytes(key, 1000 * WAIT_SECONDS))
    except RuntimeError:
        what = f"process 0 has not answered within {WAIT_SECONDS} s"
        raise RuntimeError(f"{what}: look at its last lines, end it, and start all again") from None
    if error is not None:
        _told.append(error)
        raise RuntimeError(error)
    return result


def expect_file(path: Path, name: str, size: int | None = None) -> None:
    """Raises ValueError unless this process sees a file that the first one has, of so many bytes; waits for it a while.
    name: of the parameter that gives its folder."""
    until = time.monotonic() + FILE_SECONDS
    while not (path.is_file() and size in (None, path.stat().st_size)):
        if time.monotonic() > until:
            found = f"{path} of process 0 is not the same on the machine of process {share().process}"
            raise ValueError(f"{name}: {found}; give a folder on a disk that all machines see")
        time.sleep(0.5)


def leave(code: int) -> None:
    """End this process's part in the work. After a failure (code is not 0), end the process itself."""
    if not _kept:  # `join` found no others
        return
    if not code:
        from_first(lambda: None)  # JAX's own end waits for the others only five minutes
        return
    if sys.exc_info()[0]:
        traceback.print_exc()
    if code == 1:  # is it the failure of another process? Then `_watch` will know, and end this one with a sentence
        time.sleep(2 * ALIVE_SECONDS if _told else DEAD_SECONDS + 2 * ALIVE_SECONDS)
    sys.stdout.flush()
    os._exit(code)  # any other way, JAX would wait for the processes that have failed


def _state():
    from jax._src.distributed import global_state  # there is no public name

    return global_state


def _watch() -> None:
    """Show the others that this process is alive, and end it when one of them no longer is."""
    state, seen = _state(), {}
    for beat in itertools.count():
        try:
            state.client.key_value_set(f"unet_helpers/alive/{state.process_id}", str(beat), allow_overwrite=True)
            found = state.client.key_value_dir_get("unet_helpers/alive/")
        except RuntimeError:
            _end_because_of(0)
        now = time.monotonic()
        for key, value in found:
            process = int(key.rpartition("/")[2])
            if seen.get(process, (None,))[0] != value:
                seen[process] = value, now
            elif now - seen[process][1] > DEAD_SECONDS:
                _end_because_of(process)
        time.sleep(ALIVE_SECONDS)


def _first_is_gone() -> bool:
    host, _, port = _state().coordinator_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        return False
    except OSError:
        return True


def _end_because_of(process: int | None) -> NoReturn:
    last = _state().num_processes - 1
    who = "this process was aborted" if process is None else f"process {process} (of 0 to {last}) has ended"
    todo = "its last lines say why; start all again, and the run resumes after its last finished epoch"
    print(f"unet_helpers: {who}: {todo}", file=sys.stderr, flush=True)
    os._exit(1)
