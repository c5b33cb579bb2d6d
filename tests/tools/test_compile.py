"""The compile check: how a program is read, what follows from it, and small nets for a TPU."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import configs
from tools.compile import __main__ as command
from tools.compile import check, facts, hlo, programs, table, topology
from tools.compile.check import Report
from tools.compile.cost import Cost
from tools.compile.facts import Facts
from train import config as config_lib
from train import data, loop
from train import mesh as meshes
from train.config import Config, ConfigError, DataConfig, EvalConfig

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHIP = topology.Chip(flops=100.0, bandwidth=10.0, memory=1000.0)
FACTS = Facts(train=1000, test=90, classes=10, side=8, channels=3)

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install -e '.[tpu-compile]'",
)

# Every line is of the kind that the TPU compiler writes; sizes are chosen to be told apart.
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%fused (param_0: bf16[64,16], param_1: f32[100,128]) -> f32[1,128] {
  %param_1 = f32[100,128]{1,0:T(8,128)} parameter(1)
  %param_0 = bf16[64,16]{1,0:T(8,128)(2,1)} parameter(0)
  %row = f32[1,128]{1,0:T(1,128)} slice(%param_1), slice={[0:1], [0:128]}
  ROOT %sum = f32[1,128]{1,0:T(1,128)} add(%row, %row)
}

%written (param_0.1: f32[100,128], param_1.1: f32[1,128]) -> f32[100,128] {
  %param_0.1 = f32[100,128]{1,0} parameter(0)
  %param_1.1 = f32[1,128]{1,0} parameter(1)
  %zero = s32[] constant(0)
  ROOT %put = f32[100,128]{1,0} dynamic-update-slice(%param_0.1, %param_1.1, %zero, %zero)
}

%body (state: (f32[256])) -> (f32[256]) {
  %state = (f32[256]{0:T(256)}) parameter(0)
  %item = f32[256]{0:T(256)} get-tuple-element(%state), index=0
  %double = f32[256]{0:T(256)} add(%item, %item)
  ROOT %out = (f32[256]{0:T(256)}) tuple(%double)
}

%test (state.1: (f32[256])) -> pred[] {
  %state.1 = (f32[256]{0:T(256)}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (a: bf16[64,16], b: f32[100,128], c: f32[256]) -> f32[1,128] {
  %a = bf16[64,16]{1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[100,128]{1,0:T(8,128)} parameter(1)
  %c = f32[256]{0:T(256)} parameter(2)
  %far = f32[1,128]{1,0:T(1,128)} fusion(%a, %b), kind=kLoop, calls=%fused, \
metadata={op_name="jit(step)/add"}
  %near = f32[100,128]{1,0:T(8,128)S(1)} copy(%b)
  %put.1 = f32[100,128]{1,0} fusion(%b, %far), kind=kLoop, calls=%written
  %begun = ((f32[100,128]{1,0}), f32[10,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%b)
  %ended = f32[10,128]{1,0:S(1)} slice-done(%begun)
  %init = (f32[256]{0:T(256)}) tuple(%c)
  %loop = (f32[256]{0:T(256)}) while(%init), condition=%test, body=%body, \
backend_config={"known_trip_count":{"n":"7"}}
  %pairs = f32[1,128]{1,0} all-reduce(%far), replica_groups={{0,1},{2,3}}, to_apply=%add
  %fours = f32[1,128]{1,0} all-reduce(%pairs), replica_groups=[2,4]<=[8], to_apply=%add
  %axis = f32[1,128]{1,0} all-gather(%far), replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}
  %part = f32[1,128]{1,0} all-gather(%far), replica_groups=mesh['a'=8] {'a':(1)4}, dimensions={0}
  ROOT %last = f32[1,128]{1,0} collective-permute(%axis), source_target_pairs={{0,1}}
}
"""


@pytest.fixture(scope="module")
def program():
    return hlo.parse(PROGRAM)


def test_traffic_counts_what_main_memory_sees(program):
    """With padding, without vector memory, slices as slices, loops as often as they run."""
    row, whole = 4 * 128, 4 * 104 * 128
    expected = {
        "far": 2 * 64 * 128 + row + row,  # a is filled up to 128 columns; of b one row is read
        "near": whole,  # written to vector memory
        "put.1": row + row,  # one row is read, and written where the array lies
        "begun": 4 * 10 * 128,  # ten rows are read, into vector memory
        "double": 7 * 2 * 4 * 256,
        "pairs": 2 * row,
        "fours": 2 * row,
        "axis": 2 * row,
        "part": 2 * row,
        "last": 2 * row,
    }
    moved = {move.instruction.name: move.bytes for move in hlo.moves(program)}
    assert moved == expected
    assert hlo.traffic(program) == sum(expected.values())
    sizes = [move.bytes for move in hlo.moves(program)]
    assert sizes == sorted(sizes, reverse=True)
    (far,) = (move.instruction for move in hlo.moves(program) if move.instruction.name == "far")
    assert far.source == "jit(step)/add"


def test_collectives_are_counted_by_kind_and_partners(program):
    """Groups are written in three ways, and not at all for a permutation."""
    assert hlo.collectives(program) == {
        "all-reduce/2": (1, 512),
        "all-reduce/4": (1, 512),
        "all-gather/4": (2, 1024),
        "collective-permute": (1, 512),
    }


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("nothing of the kind")


def test_a_real_program_is_read_as_it_is():
    """An elementwise sum on one device, and a mean over eight, compiled for this machine."""
    x = jax.ShapeDtypeStruct((300, 7), jnp.float32)
    added = jax.jit(lambda a, b: a + 2 * b).lower(x, x).compile()
    assert hlo.traffic(hlo.parse(added.as_text())) == 3 * 4 * 300 * 7
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    mesh = meshes.make_mesh()
    shared = jax.ShapeDtypeStruct((16, 5), jnp.float32, sharding=meshes.split(mesh))
    mean = jax.jit(partial(jnp.mean, axis=0), out_shardings=meshes.replicated(mesh))
    found = hlo.collectives(hlo.parse(mean.lower(shared).compile().as_text()))
    assert found == {"all-reduce/8": (1, 4 * 5)}


def _cost(**changes):
    cost = Cost(
        program="train step",
        images=64,
        compile_seconds=1.0,
        flops=200.0,
        accessed=90.0,
        traffic=30,
        memory=900,
        temporaries=400,
        collectives={"all-reduce/8": 3},
        collective_bytes={"all-reduce/8": 2_000_000},
        moves=[["jit(train_step)/add", 20]],
    )
    return cost._replace(**changes)


def _report(*costs, config=None):
    config = config or Config(epochs=30, data=DataConfig(batch_size=64))
    return Report("name", (), "v5e:2x4", 8, check.relevant(config), FACTS, costs)


def test_the_roofline_is_the_longer_of_the_two():
    """200 operations at 100 a second, or 30 bytes at 10 a second."""
    assert _cost().seconds(CHIP) == 3
    assert _cost().waits_for(CHIP) == "memory"
    assert _cost(traffic=10).seconds(CHIP) == 2
    assert _cost(traffic=10).waits_for(CHIP) == "arithmetic"


@pytest.mark.parametrize(("epochs", "every"), [(30, 20), (40, 20), (3, 1)])
def test_a_run_takes_the_steps_that_the_loop_takes(epochs, every):
    """Training steps and batches of metrics passes, against the loop's own questions."""
    config = Config(
        epochs=epochs,
        data=DataConfig(batch_size=64),
        eval=EvalConfig(batch_size=100, every_epochs=every),
    )
    run = loop.TrainRun(config, None, None, None, 1000 // 64)
    passes = sum(run.is_recorded(step) for step in range(run.steps + 1))
    report = _report(_cost(), _cost(program="metrics step", images=100), config=config)
    counts = check.steps(report)
    assert counts == {"train step": run.steps, "metrics step": passes * (10 + 1)}
    hours = check.chip_hours(report, CHIP)
    assert hours["train step"] == pytest.approx(8 * run.steps * 3 / 3600)
    total = sum(hours.values())
    assert f"Together {total:,.3g} chip-hours" in list(table.summary(report, CHIP))[-1]


def test_problems_are_found():
    """Memory, and collectives of a kind that nobody expects; the state may be divided."""
    assert check.problems(_report(_cost()), CHIP) == []
    (full,) = check.problems(_report(_cost(memory=1001)), CHIP)
    assert "train step holds" in full
    talking = _cost(collectives={"all-reduce/8": 1, "all-gather/2": 1})
    (strange,) = check.problems(_report(talking), CHIP)
    assert strange.endswith("all-gather.")
    divided = Config(mesh=config_lib.MeshConfig(model=2))
    assert check.problems(_report(talking, config=divided), CHIP) == []
    (loud,) = check.problems(_report(_cost(program="metrics step"), config=divided), CHIP)
    assert "metrics step has collectives of the kind all-reduce" in loud


@pytest.mark.parametrize(("memory", "code"), [(1, 0), (2e12, 1)])
def test_the_exit_code_is_a_verdict(monkeypatch, capsys, tmp_path, memory, code):
    """A program that does not fit fails the command, whose table and file are there all the same.

    What compiles is replaced: this is about what becomes of its result.
    """
    path = tmp_path / "found.json"
    report = _report(_cost(memory=memory))
    monkeypatch.setattr(topology, "find", lambda name: (CHIP._replace(memory=1e12), []))
    monkeypatch.setattr(check, "check", lambda *arguments, **options: report)
    monkeypatch.setattr(table.metadata, "version", lambda name: "0.0")  # of what is not installed
    for _ in range(2):  # The second takes the place of the first.
        assert command.main(["digits", "--json", str(path)]) == code
    printed = capsys.readouterr()
    assert ("failed: the train step holds" in printed.err) == bool(code)
    assert "3 all-reduce among 8, 2.0 MB" in printed.out
    (stored,) = json.loads(path.read_text())
    assert table.from_json(stored) == report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digist"], "Did you mean 'digits'"),
        (["digits", "--topology", "v99:2x4"], r"known chips: v5e"),
        (["imagenet_temperature/tau_9"], "has the runs"),
    ],
)
def test_mistakes_are_told(capsys, arguments, message):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_facts_of_data_that_is_not_here():
    """Known sets by name, their own size of images or the config's; others by what is given."""
    imagenet = configs.get("imagenet_resnet50").data
    assert facts.find(imagenet, None, None) == Facts(1_281_167, 50_000, 1000, 224, 3)
    cifar = configs.get("cifar10_resnet18").data
    assert facts.find(cifar, None, None) == Facts(50_000, 10_000, 10, 32, 3)
    assert facts.find(cifar, [7, 5], 3) == Facts(7, 5, 3, 32, 3)
    digits = configs.get("digits").data
    assert facts.find(digits, None, None) == Facts(1437, 360, 10, 8, 1)
    folder = DataConfig(source="folder:somewhere", image_size=64)
    assert facts.find(folder, [7, 5], 3) == Facts(7, 5, 3, 64, 3)
    for unknown in (folder, DataConfig(source="tfds:cifar10", train_split="train[:90%]")):
        with pytest.raises(ConfigError, match="give --images TRAIN TEST"):
            facts.find(unknown, None, None)
    with pytest.raises(ConfigError, match=r"--data\.image_size is 0"):
        facts.find(DataConfig(source="tfds:imagenet2012"), None, None)


def test_the_batches_are_those_of_the_pipeline():
    """Names, shapes and types, of batches to train on and to measure."""
    config = DataConfig(source="synthetic:16x4x2", batch_size=8)
    loaded, mesh = data.load(config), meshes.make_mesh()
    training = data.training_batches(loaded.train, config, 0)
    measured = data.evaluation_batches(loaded.test, config, 4, 8)
    for batches, masked in ((training, False), (measured, True)):
        real = meshes.put_batch(next(iter(batches)), mesh)
        described = programs.batch(mesh, 8, loaded.image_shape, masked=masked)
        kinds = [
            {name: (leaf.shape, leaf.dtype, leaf.sharding) for name, leaf in batch.items()}
            for batch in (real, described)
        ]
        assert kinds[0] == kinds[1]
        batches.close()


def test_a_changed_config_is_noticed():
    """By the name of the field; what no program depends on may change."""
    config = configs.get("imagenet_resnet50")
    report = _report(config=config)
    assert check.drift(report, config) == []
    changed = config_lib.override(
        config, ["--data.batch_size", "512", "--seed", "3", "--data.workers", "1"]
    )
    assert check.drift(report, changed) == ["data.batch_size"]
    without = {**report.config, "model": dict(report.config["model"])}
    del without["model"]["patch"]  # As if the field had come since.
    assert check.drift(report._replace(config=without), config) == []
    other = config_lib.override(config, ["--model.patch", "8"])
    assert check.drift(report._replace(config=without), other) == ["model.patch"]
    more = {**report.config, "model": {**report.config["model"], "gone": 1}}
    assert check.drift(report._replace(config=more), config) == ["model.gone"]


def _stored():
    reports = json.loads((DOCS / "compile_v5e.json").read_text())
    return [pytest.param(report, id=report["name"]) for report in reports]


@pytest.mark.parametrize("stored", _stored())
def test_stored_results_are_of_the_configs_and_the_document(stored):
    """The document has the very rows and sentences; the configs are still those; all fits."""
    report, chip = table.from_json(stored), topology._CHIPS["v5e"]
    config = config_lib.override(configs.get(report.name), report.overrides)
    assert check.drift(report, config) == []
    assert check.problems(report, chip) == []
    text = (DOCS / "compile.md").read_text()
    for cost in report.costs:
        cells = (report.name, *table.cells(cost, chip))
        assert "| " + " | ".join(cells) + " |" in text
        held = sum(size for _, size in cost.moves)
        assert 0 < held <= cost.traffic <= 2 * cost.accessed
    for line in table.summary(report, chip):
        assert line in text


def test_the_demand_of_the_chips_is_said_in_cores():
    report = table.from_json(next(r.values[0] for r in _stored() if r.id == "imagenet_resnet50"))
    (line,) = table.demand(report, topology._CHIPS["v5e"], 551)
    assert line == (
        "8 chips take at most 29,438 images/s to train: at 551 images/s a core, 54 cores."
    )


def _compile(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "tools.compile", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (("--model.bn_group", "16"), {"all-reduce/2", "all-reduce/8"}),
        (("--mesh.model", "4"), {"all-reduce", "all-gather"}),
    ],
    ids=["groups", "divided"],
)
def test_a_small_net_compiles_for_a_tpu(tmp_path, arguments, kinds):
    """Batch 64 on eight chips: groups of 16 span two of them, and of weights each has a part."""
    result = _compile("digits", "--json", str(tmp_path / "found.json"), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    (stored,) = json.loads((tmp_path / "found.json").read_text())
    train, metrics = table.from_json(stored).costs
    names = train.collectives.keys()
    assert kinds <= {*names, *(name.partition("/")[0] for name in names)}
    assert metrics.collectives == {}
    assert 0 < train.traffic < train.accessed
    assert train.temporaries < train.memory < 100e6
    # Nothing is lost on the way to eight chips: each does an eighth of a forward and two backward.
    assert math.isclose(train.flops / metrics.flops, 3 * 64 / 256, rel_tol=0.3)


@needs_compiler
@pytest.mark.slow
def test_an_arrangement_that_does_not_exist_is_refused():
    result = _compile("digits", "--topology", "v5e:3x5")
    assert result.returncode == 2
    assert "--topology is 'v5e:3x5'" in result.stderr
