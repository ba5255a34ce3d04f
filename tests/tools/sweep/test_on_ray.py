"""The engine on Ray, on one small cluster for all tests: what is killed is done again, and nothing is left running."""

from __future__ import annotations

import _thread
import io
import os
import pickle
import signal
from pathlib import Path

import pytest

from helpers import kill_once, runs_still
from tools.common.paths import ROOT
from tools.common.waiting import wait_for
from tools.sweep.engine import Run, carry_out, choose_engine
from tools.sweep.view import View
from tools.sweep.work import Command, Ending

ray = pytest.importorskip("ray", reason="needs Ray: pip install -e '.[cluster]'")
STORE = 80 * 2**20  # bytes of each node's object store


class Cluster:
    """A head without cores, and two nodes with a core each, of which one has a GPU by its word alone."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self._gpus = {}
        for gpus in (0, 1):
            self.add(gpus)

    def add(self, gpus):
        node = self._cluster.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=STORE)
        self._gpus[node] = gpus

    def _node_of(self, worker):
        raylet = parent(worker)
        (node,) = [node for node in self._gpus if node.all_processes["raylet"][0].process.pid == raylet]
        return node

    def has_driver(self, worker):
        """Whether the node that started a process is the one that this process is connected to, and dies with."""
        driver = ray._private.worker.global_worker.node
        return self._node_of(worker).raylet_socket_name == driver.raylet_socket_name

    def kill_node_of(self, worker):
        """Kill the node that started a process, and add another one."""
        node = self._node_of(worker)
        self._cluster.remove_node(node, allow_graceful=False)
        self.add(self._gpus.pop(node))

    def close(self):
        self._cluster.shutdown()


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def on_ray(cluster):
    """Engines on the cluster."""
    from tools.sweep.on_ray import RayEngine

    def start(gpus=0, cpus=1):
        return RayEngine(cluster.address, gpus, cpus)

    yield start
    ray.shutdown()


@pytest.fixture
def engine(on_ray):
    return on_ray()


def bash(folder, name, text, *needs, **options):
    """A run of a program that notes its start and its end in a file."""
    text = f"echo {name} >> {folder}/started; {text}\necho {name} >> {folder}/ended"
    return Run(name, Command(("bash", "-c", text)), folder / f"{name}.log", needs, **options)


def lines(path):
    return path.read_text().split() if path.exists() else []


def do(runs, engine):
    stream = io.StringIO()
    return carry_out(runs, engine, View(runs, stream)), stream.getvalue()


def test_runs_go_side_by_side_after_what_they_need(engine, tmp_path):
    meets = f"while [[ $(wc -l < {tmp_path}/started) -lt 2 ]]; do sleep 0.1; done"
    runs = [
        bash(tmp_path, "a", meets, weight=2),
        bash(tmp_path, "b", meets, weight=2),
        bash(tmp_path, "test_a", "true", "a"),
        bash(tmp_path, "bad", "exit 3", weight=1),
        bash(tmp_path, "test_bad", "true", "bad"),
    ]
    failures, told = do(runs, engine)
    assert [failure.run.name for failure in failures] == ["bad", "test_bad"]
    assert "(exit status 3); log: " in str(failures[0])
    assert sorted(lines(tmp_path / "ended")) == ["a", "b", "test_a"]
    assert "[5/5] " in told


def test_run_whose_worker_is_killed_is_done_again(engine, tmp_path):
    kills = f"sleep 1000 & echo $! > {tmp_path}/number; kill -KILL $PPID; wait"
    killed = f"[[ $(wc -l < {tmp_path}/started) -gt 1 ]] || {{ {kills}; }}"
    failures, _ = do([bash(tmp_path, "a", killed), bash(tmp_path, "test_a", "true", "a")], engine)
    assert failures == []
    (number,) = lines(tmp_path / "number")
    wait_for(lambda: not runs_still(number))
    assert lines(tmp_path / "started") == ["a", "a", "test_a"]
    assert lines(tmp_path / "ended") == ["a", "test_a"]


def test_all_tasks_have_one_name_as_ray_keeps_each(engine, tmp_path):
    note = f"tr '\\0' ' ' < /proc/$PPID/cmdline >> {tmp_path}/names"
    assert do([bash(tmp_path, name, note) for name in "abc"], engine)[0] == []
    assert set(lines(tmp_path / "names")) == {"ray::tools.sweep"}


def test_run_without_gpu_memory_has_its_gpu_alone(on_ray, tmp_path):
    memory = f"[[ -e {tmp_path}/seen ]] || {{ touch {tmp_path}/seen; echo CUDA out of memory; exit 1; }}"
    note = f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpu"
    failures, told = do([bash(tmp_path, "a", f"{memory}; {note}")], on_ray(gpus=0.5))
    assert failures == []
    assert "GPU out of memory: a; it is tried once more, alone on its GPU" in told
    assert (tmp_path / "gpu").read_text() == "0\n"


def test_interrupt_ends_all_workers(engine, tmp_path):
    def interrupted(under_way):
        if len(lines(tmp_path / "numbers")) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    again = f"kill -INT {os.getpid()}; sleep 1"  # who is impatient leaves the runs time to end all the same
    told = f"trap '{again}; echo told >> {tmp_path}/told; exit 1' TERM"
    # Not `wait`, which can miss a signal that comes as it begins
    waits = f"{told}; echo $$ >> {tmp_path}/numbers; while :; do sleep 0.1; done"
    runs = [bash(tmp_path, name, waits) for name in "abc"]
    view = View(runs, io.StringIO())
    view.update = interrupted
    with pytest.raises(KeyboardInterrupt):
        carry_out(runs, engine, view)
    wait_for(lambda: not any(runs_still(number) for number in lines(tmp_path / "numbers")))
    assert lines(tmp_path / "told") == ["told", "told"]
    assert lines(tmp_path / "ended") == []


def cancelled(log, tick):
    _thread.interrupt_main()  # as Ray does it
    tick()


def test_run_is_cancelled_even_if_ray_was_started_in_the_background(tmp_path):
    """What a script starts there ignores Ctrl-C, and so do Ray's workers."""
    from tools.sweep.on_ray import _task

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt):
        _task(str(ROOT))(pickle.dumps((cancelled, tmp_path / "a.log")))


def test_interrupt_as_a_run_is_given_to_ray_leaves_it_noted(engine, tmp_path, monkeypatch):
    """Or it would not be told to end."""

    class Interrupted:
        def remote(self, pickled):
            os.kill(os.getpid(), signal.SIGINT)
            return "reference"

    run = bash(tmp_path, "a", "true")
    monkeypatch.setattr(engine, "_tasks", {False: Interrupted()})
    monkeypatch.setattr(engine, "_runs", {})
    with pytest.raises(KeyboardInterrupt):
        engine.submit(run, alone=False)
    assert engine._runs == {"reference": run}
    monkeypatch.undo()


def test_driver_that_is_killed_leaves_nothing_running(cluster, tmp_path):
    waits = f"sleep 1000 & echo $! >> {tmp_path}/numbers; wait"
    run = tmp_path / "run"
    run.write_bytes(pickle.dumps(bash(tmp_path, "a", waits)))
    code = (
        "import pickle; from pathlib import Path; from tools.sweep.engine import carry_out;"
        "from tools.sweep.on_ray import RayEngine; from tools.sweep.view import View;"
        f"runs = [pickle.loads(Path('{run}').read_bytes())];"
        f"carry_out(runs, RayEngine('{cluster.address}', 0, 1), View(runs))"
    )
    kill_once(code, lambda: lines(tmp_path / "numbers")[:1])
    assert lines(tmp_path / "ended") == []


@pytest.mark.parametrize(
    ("gpus", "cpus", "words"), [(3, 1, "a run needs 3 GPU, and the cluster has 1"), (0, 100, "a run needs 100 CPU")]
)
def test_more_than_the_cluster_has_is_refused(on_ray, gpus, cpus, words):
    with pytest.raises(ValueError, match=words):
        on_ray(gpus, cpus)


def test_run_of_a_node_that_is_killed_is_done_on_another(cluster, engine, tmp_path):
    """The last one on this cluster, which takes the node for a living one until it misses its heartbeats."""
    for name in "ab":
        again = f"[[ $(grep -c {name} {tmp_path}/started) -gt 1 ]]"
        waits = f"{again} || {{ sleep 1000 & echo {name} $! $PPID >> {tmp_path}/numbers; wait; }}"
        engine.submit(bash(tmp_path, name, waits), alone=False)
    numbers = wait_for(lambda: len(lines(tmp_path / "numbers")) == 6 and lines(tmp_path / "numbers"))
    by_name = {name: (number, worker) for name, number, worker in zip(numbers[::3], numbers[1::3], numbers[2::3])}
    killed, other = sorted(by_name, key=lambda name: cluster.has_driver(by_name[name][1]))
    cluster.kill_node_of(by_name[killed][1])
    wait_for(lambda: not runs_still(by_name[killed][0]))
    os.kill(int(by_name[other][0]), signal.SIGTERM)
    outcomes = {}
    while len(outcomes) < 2:
        done = wait_for(lambda: engine.wait(lambda: None))
        outcomes.update({run.name: outcome.ending for run, outcome in done})
    assert outcomes == dict.fromkeys("ab", Ending.FINISHED)
    assert sorted(lines(tmp_path / "started")) == sorted([killed, killed, other])
    assert sorted(lines(tmp_path / "ended")) == ["a", "b"]


def test_no_cluster_at_the_address_is_told():
    with pytest.raises(ConnectionError):
        choose_engine(5, address="127.0.0.1:9")


def test_ray_that_does_not_start_is_told(monkeypatch):
    def too_busy(**options):
        raise Exception("the node timed out\nduring startup")  # a plain one, as Ray's own

    monkeypatch.setattr(ray, "init", too_busy)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConnectionError, match=r"Ray did not start: the node timed out during startup .*--one-by-one"):
        choose_engine(5)
