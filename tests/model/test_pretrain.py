"""Pretraining: the loss falls, a resumed training equals an uninterrupted one, the budget holds, a base goes on."""

import contextlib
import fcntl
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import modeling_utils

from ttt_core.__main__ import main
from ttt_core.errors import CheckpointError, InputError, ModelError, NonFiniteError
from ttt_core.model import checkpoint, load, pretrain_config, stream, trainlog
from ttt_core.model import pretrain as pretraining
from ttt_core.model.distributed import World
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import load_model
from ttt_core.model.pretrain import pretrain
from ttt_core.model.pretrain_config import PretrainConfig
from ttt_core.model.sources import read_corpus
from ttt_core.model.step import make_optimizers, train_step, update_ema
from ttt_core.model.stream import examples


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A Kaggle-named folder of four tasks: task t{i} turns its 3 x 3 inputs i times."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    challenges, solutions = {}, {}
    for task in range(4):
        grids = [rng.integers(0, 3, (3, 3)) for _ in range(5)]
        pairs = [{"input": g.tolist(), "output": np.rot90(g, task).tolist()} for g in grids]
        challenges[f"t{task}"] = {"train": pairs[:4], "test": [{"input": pairs[4]["input"]}]}
        solutions[f"t{task}"] = [pairs[4]["output"]]
    (folder / "arc-agi_training_challenges.json").write_text(json.dumps(challenges))
    (folder / "arc-agi_training_solutions.json").write_text(json.dumps(solutions))
    return folder


def config(steps, **options):
    toy = dict(budget_s=1e9, width=32, layers=1, heads=2, batch_tokens=128, warmup_steps=2, save_every_s=0)
    return PretrainConfig(max_steps=steps, **{**toy, **options})


def log(out):
    return [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]


def losses(out):
    return [entry["loss"] for entry in log(out)]


@pytest.mark.parametrize("packed", [False, True])
def test_the_loss_falls_and_a_model_stands(data, tmp_path, packed):
    pretrain(data, tmp_path, config(60, packed=packed), hold_out=frozenset(["t1"]))
    assert np.mean(losses(tmp_path)[-5:]) < losses(tmp_path)[0] - 0.3
    assert (tmp_path / "model.safetensors").exists() and not list(tmp_path.glob("**/*.bin"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_resumed_training_has_the_losses_of_an_uninterrupted_one(data, tmp_path, monkeypatch, packed):
    from ttt_core.model import pretrain as module

    torch.use_deterministic_algorithms(True)
    options = config(8, dropout=0.1, scale_share=0.3, translate_share=0.3, packed=packed)
    pretrain(data, tmp_path / "whole", options)
    real, calls = module.train_step, []

    def killed(*args):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(data, tmp_path / "parts", options)
    monkeypatch.setattr(module, "train_step", real)
    pretrain(data, tmp_path / "parts", options)
    torch.use_deterministic_algorithms(False)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_torn_checkpoint_is_stepped_over_and_two_are_named(data, tmp_path):
    pretrain(data, tmp_path, config(3))
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="does not match its checksum; checkpoint.old is taken, step 2"):
        pretrain(data, tmp_path, config(3))
    for name in ("checkpoint", "checkpoint.old"):
        (tmp_path / name / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="give another --out"):
        pretrain(data, tmp_path, config(4))


def dying(real, calls):
    """`real`, which raises KeyboardInterrupt in place of its last call."""
    left = iter(range(calls - 1))

    def called(*args, **named):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*args, **named)

    return called


def test_where_the_newest_checkpoint_is_torn_a_killed_save_leaves_a_whole_one(tmp_path, monkeypatch):
    net = nn.Linear(2, 2)
    for step in (1, 2):
        checkpoint.save_checkpoint(tmp_path, net, [], None, {"step": step})
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"torn")
    for where, name, calls in ((os, "replace", 2), (checkpoint, "save_file", 1)):  # the last renaming; the next writing
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, name, dying(getattr(where, name), calls))
            checkpoint.save_checkpoint(tmp_path, net, [], None, {"step": 3})
        assert checkpoint.load_checkpoint(tmp_path, net, [], None, lambda progress: None) == {"step": 3}


def test_a_killed_save_leaves_no_model_of_old_and_new_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD_SIZE", "10KB")
    net = GridLM(GridLMConfig(width=32, layers=1, heads=2))
    old, new = ({name: torch.full_like(w, value) for name, w in net.state_dict().items()} for value in (1, 2))
    found = set()
    for where, name in ((modeling_utils, "safe_save_file"), (os, "replace")):
        for calls in range(1, 9):
            checkpoint.save_model(net, tmp_path, old)
            with monkeypatch.context() as patch:
                patch.setattr(where, name, dying(getattr(where, name), calls))
                with contextlib.suppress(KeyboardInterrupt):
                    checkpoint.save_model(net, tmp_path, new)
            with contextlib.suppress(ModelError):
                values = {w.unique().item() for w in load_model(tmp_path, device="cpu").net.state_dict().values()}
                assert len(values) == 1, f"{name} {calls}"
                found |= values
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2 and found == {1, 2}


def test_a_model_without_checkpoint_is_not_replaced(data, tmp_path):
    pretrain(data, tmp_path, config(1))
    for folder in tmp_path.glob("checkpoint*"):
        shutil.rmtree(folder)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="holds a model without checkpoint; give another --out, and this one as"):
        pretrain(data, tmp_path, config(2))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("option", "told"),
    [({"width": 64}, "width was 32, now 64"), ({"layers": 2}, "layers was 1"), ({"ema": 0.9}, "ema was")],
)
def test_an_option_that_changes_shapes_is_refused_as_any_other(data, tmp_path, option, told):
    pretrain(data, tmp_path, config(1))
    with pytest.raises(CheckpointError, match=told):
        pretrain(data, tmp_path, config(2, **option))
    with pytest.raises(CheckpointError, match="what is learnt .* was"):
        pretrain(data, tmp_path, config(2), exclude=frozenset(["t1"]))


def test_a_log_line_cut_short_does_not_stop_the_next_call(data, tmp_path):
    pretrain(data, tmp_path, config(2))
    with open(tmp_path / "train_log.jsonl", "a") as file:
        file.write('\0\0\0\0\n{}\n7\n{"step": 2, "epo')
    pretrain(data, tmp_path, config(3))
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2, 3]


def test_a_checkpoint_of_other_options_is_refused_by_name(data, tmp_path):
    pretrain(data, tmp_path, config(1))
    told = (tmp_path / "checkpoint" / "progress.json").read_text()
    written = json.loads(told)
    written["progress"]["config"]["processes"] = 2
    written["sha256"]["progress"] = checkpoint.digest(written["progress"])
    (tmp_path / "checkpoint" / "progress.json").write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match="processes was 2, now 1"):
        pretrain(data, tmp_path, config(2))
    (tmp_path / "checkpoint" / "progress.json").write_text(told)
    with pytest.raises(CheckpointError, match="batch_tokens was 128, now 256"):
        pretrain(data, tmp_path, config(2, batch_tokens=256))
    pretrain(data, tmp_path, config(2, save_every_s=1.0))


@pytest.mark.parametrize("is_told", [True, False])
def test_an_epoch_cut_otherwise_than_on_this_machine_is_left_for_the_next(data, tmp_path, monkeypatch, is_told):
    pretrain(data, tmp_path, config(2))
    file = tmp_path / "checkpoint" / "progress.json"
    written = json.loads(file.read_text())
    if not is_told:  # as they were before this field
        del written["progress"]["packed"]
        written["sha256"]["progress"] = checkpoint.digest(written["progress"])
        file.write_text(json.dumps(written))
    monkeypatch.setattr(pretrain_config, "has_varlen", lambda device: True)
    told = "steps were padded batches, on this machine they are rows; .* epoch 1 begins"
    with pytest.warns(UserWarning, match=told) if is_told else warnings.catch_warnings():
        pretrain(data, tmp_path, config(3))
    pretrain(data, tmp_path, config(4))
    batches = [1, 2] if is_told else [3, 4]
    assert [entry["epoch"] for entry in log(tmp_path)] == [0, 0, is_told, is_told]
    assert json.loads(file.read_text())["progress"]["batch"] == batches[1]


def test_progress_that_was_changed_is_stepped_over_as_a_torn_checkpoint(data, tmp_path):
    pretrain(data, tmp_path, config(3))
    file = tmp_path / "checkpoint" / "progress.json"
    file.write_text(file.read_text().replace('"step": 3', '"step": 9'))
    with pytest.warns(UserWarning, match="progress does not match its checksum; checkpoint.old is taken, step 2"):
        pretrain(data, tmp_path, config(3))
    assert losses(tmp_path)[2:]


def test_a_folder_is_one_training_s_at_a_time(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "HELD_S", 0.0)
    with checkpoint.held(tmp_path / "out"), pytest.raises(CheckpointError, match="another training is at it"):
        pretrain(data, tmp_path / "out", config(1))
    pretrain(data, tmp_path / "out", config(1))


def test_a_folder_that_is_soon_let_go_is_waited_for(tmp_path):
    """As by the data process of a training that was killed."""
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    threading.Timer(0.3, os.close, (folder,)).start()
    with checkpoint.held(tmp_path), pytest.raises(CheckpointError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "HELD_S", 0.3)
        with checkpoint.held(tmp_path):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_its_processes_ends_a_training_once_its_step_is_saved(data, tmp_path, number):
    options = {"save_every_s": 1e6, "piece_s": 1e6}
    code = f"""
import os, signal, subprocess, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background processes ignore
from ttt_core.model import pretrain as p
from ttt_core.model.pretrain_config import PretrainConfig
step = p.step
def signalled(run, model, parts, number):
    if number == 2:
        subprocess.run(["sh", "-c", "kill -{int(number)} 0"])  # as `timeout`, torchrun and a terminal do
        time.sleep(0.5)
    return step(run, model, parts, number)
p.step = signalled
p.pretrain(Path({str(data)!r}), Path({str(tmp_path / "cut")!r}), {config(5, **options)!r})
"""
    told = {"capture_output": True, "text": True, "env": {**os.environ, "RANK": "0"}}
    done = subprocess.run([sys.executable, "-c", code], start_new_session=True, **told)
    assert done.returncode == -number and "the same command goes on" in done.stdout
    assert [entry["step"] for entry in log(tmp_path / "cut")] == [3]
    for out in ("cut", "whole"):
        pretrain(data, tmp_path / out, config(5, **options))
    cut, whole = (load_file(tmp_path / out / "model.safetensors") for out in ("cut", "whole"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_the_data_process_s_death_is_one_error_and_the_training_goes_on(data, tmp_path, monkeypatch, capsys):
    real = pretraining.step

    def killing(run, model, parts, number):
        for child in multiprocessing.active_children() if number == 2 else ():
            child.kill()
            child.join()
        return real(run, model, parts, number)

    monkeypatch.setattr(pretraining, "step", killing)
    line = [
        "pretrain",
        "--data",
        str(data),
        "--out",
        str(tmp_path),
        "--budget-s",
        "9",
        "--width",
        "32",
        "--layers",
        "1",
    ]
    assert main([*line, "--save-every-s", "0"]) == 2
    told = (
        r"error: the process that makes the batches died \(DataLoader worker \(pid.*\); free memory; the same command"
    )
    assert re.search(told, capsys.readouterr().err) and losses(tmp_path)
    monkeypatch.setattr(pretraining, "step", real)
    assert main([*line, "--save-every-s", "0", "--piece-s", "2"]) == 0


def test_a_fault_of_the_batches_themselves_is_not_taken_for_a_killed_process(data, tmp_path, monkeypatch):
    def faulty(*_):
        raise RuntimeError("wrong")

    monkeypatch.setattr(stream, "share_of_step", faulty)
    with pytest.raises(RuntimeError, match="wrong"):
        pretrain(data, tmp_path, config(2, packed=False))


def test_compiling_without_a_compiler_is_one_error(data, tmp_path, monkeypatch):
    def compiled(*_):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx")

    monkeypatch.setattr(pretraining, "step", compiled)
    with pytest.raises(InputError, match="--compile: finds no C.. compiler; install one .* or leave --compile away"):
        pretrain(data, tmp_path, config(2))


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.mark.parametrize(
    ("where", "name"), [(pretraining, "step"), (pretraining, "update_ema"), (checkpoint, "load_file")]
)
def test_memory_that_ends_is_one_error_whose_remedy_helps(data, tmp_path, monkeypatch, where, name):
    pretrain(data, tmp_path / "out", config(1, ema=0.9))
    with monkeypatch.context() as patched:
        patched.setattr(where, name, out_of_memory)
        with pytest.raises(
            InputError, match="out: memory has ended with batch_tokens 128; lower .* this one as --base$"
        ):
            pretrain(data, tmp_path / "out", config(2, ema=0.9))
    pretrain(data, tmp_path / "next", config(1, batch_tokens=64), base=tmp_path / "out")


def test_memory_that_ends_before_there_is_a_model_is_no_base(data, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "make_net", out_of_memory)
    with pytest.raises(InputError, match="out: memory has ended with batch_tokens 128; lower --batch-tokens$"):
        pretrain(data, tmp_path / "out", config(1))


def test_memory_that_ends_is_no_torn_checkpoint(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path, nn.Linear(2, 2), [], None, {"step": 1})
    monkeypatch.setattr(checkpoint, "load_file", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        checkpoint.load_checkpoint(tmp_path, nn.Linear(2, 2), [], None, lambda progress: None)


def test_a_full_disk_is_one_error_and_the_training_goes_on_once_there_is_room(data, tmp_path, monkeypatch):
    pretrain(data, tmp_path, config(2))

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(CheckpointError, match="No space left .* make room; the same command then goes on"):
            pretrain(data, tmp_path, config(4))
    pretrain(data, tmp_path, config(4))
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match="File exists; give an --out that can be written"):
        pretrain(data, tmp_path / "config.json", config(1))


def test_a_call_says_whether_another_one_would_go_on(data, tmp_path, capsys):
    pretrain(data, tmp_path, config(0, budget_s=600.0, piece_s=2.0))
    assert re.search(r"step \d+, [12] of 600 s: the same command goes on", capsys.readouterr().out)
    pretrain(data, tmp_path / "whole", config(2))
    assert re.search(r"step 2, \d of 1e\+09 s: the budget is used up", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--width 100 --heads 3", "width 100, heads 3: .* give --width 96"),
        ("--width 30 --heads 2", "width 30, heads 2: .* give --width 32"),  # 15 channels a head
        ("--width 8 --heads 4", "width 8, heads 4: .* give --width 16"),
        ("--layers 0", "layers 0: give --layers 1 or more"),
        ("--batch-tokens 0", "batch_tokens 0: give --batch-tokens 1 or more"),
        ("--lr -1", "lr -1.0: give --lr a positive number"),
        ("--heads -1", "heads -1: give"),
    ],
)
def test_a_shape_that_no_model_has_is_refused_by_name(data, tmp_path, capsys, options, told):
    line = ["pretrain", "--data", str(data), "--out", str(tmp_path / "out"), "--budget-s", "1", *options.split()]
    assert main(line) == 2 and not (tmp_path / "out").exists()
    assert re.search(told, capsys.readouterr().err)


def test_the_budget_and_the_piece_hold_and_the_next_call_goes_on(data, tmp_path):
    for piece in (1, 2):
        started = time.monotonic()
        pretrain(data, tmp_path, config(0, budget_s=6.0, piece_s=2.0, save_every_s=0.5))
        assert time.monotonic() - started < 3
        steps = [entry["step"] for entry in log(tmp_path)]
        assert steps == sorted(set(steps)) and 1.0 < log(tmp_path)[-1]["seconds"] < 2.5 * piece
        load_model(tmp_path, device="cpu")


@pytest.fixture
def clock(data, monkeypatch):
    """Seconds that pass only where a training reads, takes a step (in `steps`: the first ones) or saves."""
    told = SimpleNamespace(now=0.0, reading_s=0.0, steps=[], saves=0)
    read, real_save = pretraining.read_corpus, pretraining.save_all

    def reading(*args, **named):
        told.now += told.reading_s
        return read(*args, **named)

    def step(*_):
        told.now += told.steps.pop(0) if told.steps else 1.0
        return torch.tensor(1.0)

    def save(*args):
        real_save(*args)
        told.now, told.saves = told.now + 8.0, told.saves + 1

    timers = dict.fromkeys(("monotonic", "perf_counter"), lambda: told.now)
    monkeypatch.setattr(pretraining, "time", SimpleNamespace(**timers))
    for name, replacement in {"read_corpus": reading, "train_step": step, "save_all": save}.items():
        monkeypatch.setattr(pretraining, name, replacement)
    return told


@pytest.mark.parametrize("save_every_s", [5, 20, 66, 72, 74, 1000])
def test_saves_of_many_seconds_do_not_overrun_the_budget(data, tmp_path, clock, save_every_s):
    pretrain(data, tmp_path, config(0, budget_s=100.0, save_every_s=save_every_s))
    assert 85 < clock.now <= 100


def test_where_reading_takes_the_whole_budget_the_first_model_stands_alone(data, tmp_path, clock):
    clock.reading_s = 95.0
    with pytest.raises(InputError, match="budget 100 s: .* no time for a step; give more seconds"):
        pretrain(data, tmp_path, config(0, budget_s=100.0))
    assert (clock.saves, clock.now) == (1, 103)


def calls_until_used_up(data, out, options, capsys):
    """How often the command is given, at most ten times."""
    for calls in range(1, 11):
        pretrain(data, out, options)
        if "the budget is used up" in capsys.readouterr().out:
            return calls


def test_pieces_and_their_saves_together_keep_the_budget(data, tmp_path, clock, capsys):
    calls = calls_until_used_up(data, tmp_path, config(0, budget_s=200.0, piece_s=40.0, save_every_s=1e9), capsys)
    assert 5 <= calls < 8 and 165 < clock.now <= 200
    told = json.loads((tmp_path / "checkpoint/progress.json").read_text())["progress"]["seconds"]
    assert clock.now <= told <= clock.now + 8  # of the first save with momenta it was not known what it takes


@pytest.mark.parametrize("step_s", [1.0, 15.0, 20.0])
def test_a_training_whose_budget_is_used_up_takes_no_further_step(data, tmp_path, clock, capsys, step_s):
    clock.steps = [step_s] * 999
    assert calls_until_used_up(data, tmp_path, config(0, budget_s=200.0, save_every_s=1e9), capsys) < 4
    done = losses(tmp_path)
    assert clock.now <= 200
    assert calls_until_used_up(data, tmp_path, config(0, budget_s=200.0, save_every_s=1e9), capsys) == 1
    assert losses(tmp_path) == done
    pretrain(data, tmp_path, config(0, budget_s=400.0, save_every_s=1e9))
    assert len(losses(tmp_path)) > len(done) and clock.now <= 400


def test_a_slow_step_does_not_keep_the_next_piece_from_a_step(data, tmp_path, clock):
    clock.steps = [100.0]
    for calls in (1, 2):
        pretrain(data, tmp_path, config(0, budget_s=1e4, piece_s=200.0, save_every_s=1e9))
        assert len(log(tmp_path)) == calls


@pytest.mark.parametrize(("compiles", "steps"), [(True, 71), (False, 1)])
def test_compiling_does_not_end_the_piece_but_another_slow_step_does(data, tmp_path, clock, compiles, steps):
    clock.steps = [100.0]
    pretrain(data, tmp_path, config(0, budget_s=1e4, piece_s=200.0, save_every_s=1e9, compile=compiles))
    assert log(tmp_path)[-1]["step"] == steps and clock.now <= 200


@pytest.mark.parametrize(
    ("step", "share", "factor"),
    [(0, 0.0, 0.25), (1, 0.0, 0.5), (3, 0.1, 1), (99, 0.4, 1), (99, 0.7, 0.5), (99, 1.0, 0), (0, 0.7, 0.125)],
)
def test_the_rate_warms_up_stays_and_falls_to_zero(step, share, factor):
    assert pretrain_config.schedule(config(0, warmup_steps=4, flat_share=0.4), step, share) == pytest.approx(factor)


def test_a_step_that_is_not_finite_changes_nothing(data):
    corpus, alone = read_corpus(data, max_tokens=512), World(0, 1, torch.device("cpu"))
    net = pretraining.make_net(corpus, config(1), None, None)
    optimizers = make_optimizers(net, config(1), alone)
    *_, parts, _, _ = next(examples(corpus, config(1), alone, {"step": 0, "epoch": 0, "batch": 0}, packed=False))

    def state():
        kept = [t for o in optimizers for s in o.state.values() for t in s.values()]
        return [t.clone() for t in (*net.state_dict().values(), *kept)]

    train_step(net, optimizers, parts, 1.0)
    before = state()
    with pytest.raises(NonFiniteError, match="lower --lr"):
        train_step(lambda **batch: SimpleNamespace(loss=net(**batch).loss * math.inf), optimizers, parts, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


@pytest.mark.parametrize("computed", [torch.bfloat16, torch.float16, torch.float32])
def test_the_machine_s_rate_is_measured_in_the_dtype_of_the_training(data, tmp_path, monkeypatch, computed):
    measured, used, make = [], {True: set(), False: set()}, pretraining.make_net

    def watched(*given):
        net = make(*given)
        net.lm_head.register_forward_hook(lambda head, _, logits: used[head.training].add(logits.dtype))
        return net

    monkeypatch.setattr(load, "compute_dtype", lambda device: computed)
    monkeypatch.setattr(pretraining, "make_net", watched)
    monkeypatch.setattr(pretraining, "matmul_rate", lambda device, dtype: measured.append(dtype) or 1e9)
    pretrain(data, tmp_path, config(1), hold_out=frozenset(["t1"]))
    assert used == {True: set(measured), False: set(measured)} and len(measured) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_the_processes_draws_the_bar(data, tmp_path, monkeypatch, capsys, rank):
    place = World(rank, 1, torch.device("cpu"))
    monkeypatch.setattr(pretraining, "world", lambda: contextlib.nullcontext(place))
    pretrain(data, tmp_path, config(1))
    assert ("pretrain: " in capsys.readouterr().err) == (rank == 0)


def test_a_log_line_tells_rates_and_shares_of_its_stretch_alone():
    stretch = trainlog.fresh_stretch()
    for loss, lengths in ((1.0, [100, 200]), (3.0, [500])):
        trainlog.note(stretch, torch.tensor(loss), np.array(lengths), padded=500, flop=1.5e9)
    stretch["waited_s"] = 0.5
    so_far = {"step": 9, "epoch": 1, "tokens": 10**6, "flop": 1e15, "seconds": 77.0}
    assert trainlog.log_entry(so_far, stretch, seconds=2.0, matmul_rate=6e9) == {
        **so_far, "loss": 2.0, "seconds_per_step": 1.0, "tokens_per_s": 400, "flop_per_s": 1.5e9,
        "matmul_flop_per_s": 6e9, "utilisation": 0.25, "padding_share": 0.2, "data_wait_share": 0.25,
    }  # fmt: skip


def test_a_base_gives_weights_and_the_vectors_of_known_tasks(data, tmp_path):
    pretrain(data, tmp_path / "base", config(5))
    trained = load_model(tmp_path / "base", device="cpu").net
    part = replace(config(1), warmup_steps=10**9)  # a rate of nearly zero: the start shows
    pretrain(data, tmp_path / "next", part, base=tmp_path / "base", exclude=frozenset(["t1"]))
    net = load_model(tmp_path / "next", device="cpu").net
    assert net.config.task_ids == ["t0", "t2", "t3"] and net.config.width == trained.config.width
    assert torch.allclose(net.task_vectors.weight, trained.task_vectors.weight[[0, 2, 3]], atol=1e-2)
    assert torch.allclose(net.layers[0].mlp.up_proj.weight, trained.layers[0].mlp.up_proj.weight, atol=1e-2)


def test_a_base_is_known_by_its_weights_wherever_it_lies(data, tmp_path):
    for name, steps in (("base", 3), ("other", 4)):
        pretrain(data, tmp_path / name, config(steps))
    pretrain(data, tmp_path / "next", config(1), base=tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    pretrain(data, tmp_path / "next", config(2), base=tmp_path / "moved")
    (tmp_path / "other").rename(tmp_path / "base")
    with pytest.raises(CheckpointError, match="the weights of --base was"):
        pretrain(data, tmp_path / "next", config(3), base=tmp_path / "base")


def test_averaged_weights_are_the_model_and_resume(data, tmp_path):
    pretrain(data, tmp_path / "whole", config(6, ema=0.9))
    with pytest.raises(InputError, match="piece 1e-09 s: .* no time for a step"):
        pretrain(data, tmp_path / "parts", config(6, ema=0.9, piece_s=1e-9))  # nothing but the first save
    pretrain(data, tmp_path / "parts", config(6, ema=0.9))
    averaged, raw = (
        load_file(tmp_path / "whole" / n) for n in ("checkpoint/ema.safetensors", "checkpoint/model.safetensors")
    )
    model, resumed = (load_model(tmp_path / n, device="cpu").net.state_dict() for n in ("whole", "parts"))
    for name, tensor in model.items():
        assert torch.equal(tensor, averaged[name].bfloat16().float()) and torch.equal(tensor, resumed[name])
    assert not torch.equal(averaged["lm_head.weight"], raw["lm_head.weight"])


def test_a_budget_without_time_for_a_step_leaves_a_usable_model(data, tmp_path):
    with pytest.raises(InputError, match="budget 1e-09 s"):
        pretrain(data, tmp_path, config(0, budget_s=1e-9))
    assert load_model(tmp_path, device="cpu").net.config.width == 32


def test_every_file_of_a_wide_model_travels(data, tmp_path):
    pretrain(data, tmp_path, config(1, width=1024, layers=1, heads=8))
    shards = list(tmp_path.glob("model*.safetensors"))
    assert len(shards) > 1 and max(shard.stat().st_size for shard in shards) <= 16 * 2**20
    load_model(tmp_path, device="cpu")


def test_tasks_whose_pairs_are_all_too_long_are_told(data, tmp_path):
    tasks = {
        name: {"train": [{"input": [[1] * n] * n, "output": [[2] * n] * n}], "test": [{"input": [[1]]}]}
        for name, n in (("large", 9), ("small", 3))
    }
    (tmp_path / "asked.json").write_text(json.dumps(tasks))
    short, asked = config(1, max_tokens=100), {"transductive": tmp_path / "asked.json"}
    with pytest.warns(UserWarning, match="1 of 6 tasks have no pair of at most 100 tokens and are not learnt"):
        pretrain(data, tmp_path / "out", short, **asked)
    told = load_model(tmp_path / "out", device="cpu").net.config
    assert told.task_ids == ["t0", "t1", "t2", "t3", "small"] and told.shown_ids == ["small"]
    pretrain(None, tmp_path / "all", config(1), **asked)
    pretrain(data, tmp_path / "next", short, base=tmp_path / "all", **asked)  # which was shown the large one


def test_averages_follow_the_weights_and_a_step_is_no_longer_than_the_clip():
    net = nn.Linear(2, 1, bias=False)
    ema = {"weight": torch.zeros(1, 2)}
    with torch.no_grad():
        net.weight.fill_(1.0)
    for number in range(1000, 1003):
        update_ema(ema, net, 0.9, number)
    assert torch.allclose(ema["weight"], torch.full((1, 2), 1 - 0.9**3), atol=1e-6)

    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, input_ids):
            return SimpleNamespace(loss=100.0 * self.weight.sum())

    model = Steep()
    train_step(model, [torch.optim.SGD(model.parameters(), lr=1.0)], [({"input_ids": torch.zeros(1)}, 1.0)], 0.5)
    assert float(model.weight.norm().detach()) == pytest.approx(0.5, rel=1e-3)


def test_vectors_and_the_rest_have_their_rates():
    net = GridLM(GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("a",)))
    config = PretrainConfig(1.0, vector_lr=0.7, lr=0.2, muon_lr=0.1)
    muon, adamw = make_optimizers(net, config, World(0, 1, torch.device("cpu")))
    rates = {id(p): group["lr"] for o in (muon, adamw) for group in o.param_groups for p in group["params"]}
    assert rates[id(net.task_vectors.weight)] == rates[id(net.dihedral_vectors.weight)] == 0.7
    assert rates[id(net.embed_tokens.weight)] == 0.2 and rates[id(net.layers[0].mlp.up_proj.weight)] == 0.1
