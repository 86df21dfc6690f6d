"""Training material: a planted leak is refused, and of a challenge file nothing but the demonstrations is learnt."""

import gc
import gzip
import json
import re
from collections import Counter

import numpy as np
import pytest

from ttt_core.__main__ import main
from ttt_core.arc import augment
from ttt_core.arc.editions import write_edition
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import preset
from ttt_core.errors import InputError
from ttt_core.model import leakage, material, start
from ttt_core.model.load import load_model
from ttt_core.model.material import uncollected
from ttt_core.model.pretrain import pretrain
from ttt_core.model.pretrain_config import PretrainConfig
from ttt_core.model.sources import permutable, read_corpus
from ttt_core.run.evaluation import known_tasks
from ttt_core.solve.task import solve_task

TOY = PretrainConfig(
    1e9, width=64, layers=2, heads=2, batch_tokens=512, max_steps=200, warmup_steps=5, colors="none", save_every_s=1e9
)


def grids(seed, n=5):
    return np.random.default_rng(seed).integers(0, 3, (n, 2, 3)).tolist()


def turned(grid, times):
    return np.rot90(grid, times).tolist()


@pytest.fixture
def place(tmp_path):
    """Training tasks t0 and t1 with their solutions, and a challenge file of c0 and c1."""
    made = {t: [{"input": g, "output": turned(g, i)} for g in grids(i)] for i, t in enumerate(("t0", "t1"))}
    challenges = {t: {"train": pairs[:4], "test": [{"input": pairs[4]["input"]}]} for t, pairs in made.items()}
    (tmp_path / "arc-agi_training_challenges.json").write_text(json.dumps(challenges))
    solutions = {t: [pairs[4]["output"]] for t, pairs in made.items()}
    (tmp_path / "arc-agi_training_solutions.json").write_text(json.dumps(solutions))
    asked = {f"c{i}": [{"input": g, "output": turned(g, i + 1)} for g in grids(10 + i)] for i in range(2)}
    write(tmp_path, {t: {"train": pairs[:4], "test": pairs[4:]} for t, pairs in asked.items()})
    return tmp_path


def as_json(pair):
    return {"input": pair.input.tolist(), "output": pair.output.tolist()}


def write(place, challenges):
    (place / "asked.json").write_text(json.dumps(challenges))


def asked(place):
    return json.loads((place / "asked.json").read_text())


def corpus(place, **options):
    return read_corpus(options.pop("data", place), max_tokens=512, guard=place / "asked.json", **options)


def test_material_without_a_leak_passes(place):
    assert corpus(place).task_ids == ("t0", "t1")
    assert corpus(place, transductive=place / "asked.json").task_ids == ("t0", "t1", "c0", "c1")


@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize("leak", ["id", "demonstration", "test input", "test pair of the training task", "extra"])
def test_a_planted_leak_is_refused_and_can_be_left_out(place, leak, transductive):
    challenges, training = asked(place), json.loads((place / "arc-agi_training_challenges.json").read_text())
    options = {"transductive": place / "asked.json"} if transductive else {}
    if leak == "id":
        challenges["t1"] = challenges.pop("c1")
    elif leak == "demonstration":
        challenges["c1"]["train"][2] = training["t1"]["train"][3]
    elif leak == "test input":
        challenges["c1"]["test"][0]["input"] = training["t1"]["train"][0]["input"]
    elif leak == "test pair of the training task":
        challenges["c1"]["test"][0]["input"] = training["t1"]["test"][0]["input"]
    else:
        (place / "extra.json").write_text(json.dumps({"t1": challenges["c1"]["test"]}))
        options["extra"] = place / "extra.json"
    write(place, challenges)
    with pytest.raises(InputError, match="leak: training task t1 .* --exclude t1"):
        corpus(place, **options)
    assert "t0" in corpus(place, exclude=frozenset(["t1"]), **options).task_ids


@pytest.mark.parametrize("leak", ["demonstration", "test input"])
def test_a_pair_that_a_view_would_show_is_a_leak_where_it_has_30_cells(place, leak):
    """Views recolour and turn what is learnt, so equal bytes are not what a leak needs; small grids are alike by chance."""
    rng = np.random.default_rng(5)
    for shape, is_told in (((5, 6), True), ((2, 3), False)):
        pair = Pair(rng.integers(0, 3, shape).astype(np.uint8), rng.integers(0, 3, (3, 3)).astype(np.uint8))
        seen = augment.apply(augment.Augmentation(6, (0, 9, 4, 3, 2, 5, 6, 7, 8, 1)), pair.input)
        shown = seen, augment.apply(augment.Augmentation(6, (0, 9, 4, 3, 2, 5, 6, 7, 8, 1)), pair.output)
        twin = Pair(shown[0], np.rot90(shown[1]))  # another rule: not what a demonstration shows, but what a test asks
        known = [("t1", Pair(*shown) if leak == "demonstration" else twin)]
        task = {"train": [as_json(pair)], "test": [{"input": [[5, 5]]}]}
        if leak == "test input":
            task = {"train": [as_json(Pair(*2 * [np.array([[7]], np.uint8)]))], "test": [as_json(pair)]}
        write(place, {"c0": task})
        assert leakage.leaks(set(), known, place / "asked.json") == ({"t1": ("c0",)} if is_told else {})
        write(place, {"c0": task | {"train": [as_json(twin)] * 2} if leak == "demonstration" else asked(place)["c0"]})
        assert bool(leakage.leaks(set(), known, place / "asked.json")) == (is_told and leak == "test input")


def test_the_training_set_shows_what_two_evaluation_tasks_ask(tmp_path):
    """One pair as it stands, another in other colours: known of ARC-AGI-1, and told by name."""
    write_edition("arc-agi-1", tmp_path)
    tasks = material.read_training_tasks(tmp_path)
    pairs = ((task.id, pair) for task in tasks for pair in (*task.train, *task.test))
    found = leakage.leaks({task.id for task in tasks}, pairs, tmp_path / "arc-agi_evaluation_challenges.json")
    assert found == {"40853293": ("070dd51e",), "caa06a1f": ("50a16a69",)}


@pytest.mark.parametrize("leak", ["id", "demonstration", "test input"])
def test_demonstrations_of_another_file_than_the_one_to_be_evaluated_are_checked(place, leak):
    shown, made = asked(place)["c1"], [{"input": g, "output": g} for g in grids(20)]
    other = {"train": made[:4], "test": made[4:]}
    if leak == "demonstration":
        other["train"][2] = shown["train"][3]
    elif leak == "test input":
        other["test"][0] = {"input": shown["train"][0]["input"]}
    (place / "other.json").write_text(json.dumps({"c1" if leak == "id" else "d1": other}))
    options = {"max_tokens": 512, "transductive": place / "asked.json", "guard": place / "other.json"}
    with pytest.raises(InputError, match="leak: training task c1 .* --exclude c1"):
        read_corpus(place, **options)
    assert read_corpus(place, exclude=frozenset(["c1"]), **options).task_ids == ("t0", "t1", "c0")


def test_all_leaks_are_told_at_once_in_the_form_that_leaves_them_out(place, monkeypatch):
    """t0 and t1 show the same pair, which c0 asks; c1 asks another one of t1."""
    training, challenges = json.loads((place / "arc-agi_training_challenges.json").read_text()), asked(place)
    training["t2"] = {**training["t0"], "train": challenges["c1"]["test"] * 2}
    training["t0"]["train"][0] = training["t1"]["train"][0]
    challenges["c0"]["train"][0] = training["t1"]["train"][0]
    (place / "arc-agi_training_challenges.json").write_text(json.dumps(training))
    path = place / "arc-agi_training_solutions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"t2": [[[1]]]}))
    write(place, challenges)
    with pytest.raises(
        InputError, match="t0 shows what task c0 .*, and 2 more like it; leave them .* --exclude t0,t1,t2$"
    ):
        corpus(place)
    monkeypatch.setattr(leakage, "MANY", 2)
    with pytest.raises(InputError, match="leave them out with --exclude @FILE, where FILE holds t0,t1,t2$"):
        corpus(place)


def test_a_leak_that_no_exclusion_mends_names_the_file_to_take_it_out_of(place):
    made = [{"input": g, "output": g} for g in grids(20)]
    both = {"train": made[:4], "test": made[4:]}
    for name in ("shown", "guard"):
        (place / f"{name}.json").write_text(
            json.dumps({"t1": both, name: both if name == "guard" else asked(place)["c0"]})
        )
    options = {"max_tokens": 512, "transductive": place / "shown.json", "guard": place / "guard.json"}
    with pytest.raises(InputError, match=r"; leave it out with --exclude t1, and take t1 out of .*shown\.json$"):
        read_corpus(place, **options)
    with pytest.raises(InputError, match=r"leak: training task t1 .* asks; take t1 out of .*shown\.json$"):
        read_corpus(place, exclude=frozenset(["t1"]), **options)


def test_an_unknown_task_to_be_left_out_is_told(place):
    with pytest.warns(UserWarning, match="--exclude c2: there is no such task; the nearest id is c"):
        corpus(place, exclude=frozenset(["c2", "t1"]), transductive=place / "asked.json")


def test_many_unknown_tasks_to_be_left_out_are_one_warning(place):
    with pytest.warns(UserWarning) as told:
        corpus(place, exclude=frozenset(["t1", "x1", "x2", "c9"]), transductive=place / "asked.json")
    (message,) = (str(warning.message) for warning in told)
    assert re.fullmatch("--exclude c9: there is no such task; the nearest id is c[01]; and 2 more are unknown", message)


def test_a_task_of_the_guard_that_cannot_be_read_is_known_by_its_id(place):
    challenges = asked(place)
    write(place, challenges | {"t1": {"train": [], "test": challenges["c1"]["test"]}})
    with (
        pytest.warns(
            UserWarning, match="asked.json: 1 of 3 tasks cannot be read and are compared by id alone: task t1"
        ),
        pytest.raises(InputError, match="leak: training task t1 shows what task t1 .* --exclude t1"),
    ):
        corpus(place)


def test_a_guard_without_a_usable_task_is_refused(place):
    write(place, {"c0": [grids(3)[0]]})  # as a solutions file has it
    with pytest.raises(InputError, match="asked.json: no usable task: .*c0.*; give a challenge file"):
        corpus(place)


def test_of_a_task_that_is_in_both_only_the_demonstrations_are_learnt(place):
    challenges = asked(place)
    challenges["t1"] = challenges.pop("c1")
    write(place, challenges)
    learnt = corpus(place, transductive=place / "asked.json", exclude=frozenset(["t1"]))
    assert learnt.task_ids == ("t0", "c0", "t1") and learnt.shown == {"c0", "t1"}
    assert sum(index == 2 for index, _ in learnt.pairs) == 4


def test_what_is_given_and_not_learnt_is_told(place):
    (place / "extra.json").write_text(json.dumps({"other": [{"input": [[1]], "output": [[2]]}]}))
    with pytest.warns(UserWarning, match="extra.json: none is of a training task"):
        corpus(place, extra=place / "extra.json")
    with pytest.raises(InputError, match="extra.json: belong to training tasks; give --data too"):
        corpus(place, data=None, extra=place / "extra.json", transductive=place / "asked.json")
    write(place, asked(place) | {"bad": {"train": [], "test": []}})
    with pytest.warns(UserWarning, match="asked.json: 1 of 3 tasks are left out: task bad"):
        corpus(place, transductive=place / "asked.json")
    with pytest.raises(InputError, match="no pair of at most 15 tokens"):
        read_corpus(place, max_tokens=15)


def test_held_out_tasks_are_counted_not_their_pairs(place):
    """t1 has two test pairs, t0 one that is too long."""
    for kind, t0, t1 in (("challenges", {"input": [[1] * 30] * 30}, {"input": [[1]]}), ("solutions", [[1]], [[2]])):
        path = place / f"arc-agi_training_{kind}.json"
        told = json.loads(path.read_text())
        tests = told if kind == "solutions" else {name: task["test"] for name, task in told.items()}
        tests["t0"][:] = [t0]
        tests["t1"].append(t1)
        path.write_text(json.dumps(told))
    with pytest.warns(
        UserWarning, match="2 tasks are held out, of which 1 are learnt and have a test pair of at most 99"
    ):
        assert len(read_corpus(place, max_tokens=99, hold_out=frozenset(["t0", "t1"])).held_out) == 2


def test_tasks_that_keep_no_pair_get_no_number(place):
    """Of c0 only the held-out pair is short enough, of t0 none; the others' pairs keep their tasks."""
    challenges = asked(place)
    for pair in challenges["c0"]["train"][:3]:
        pair["input"] = [[1] * 30] * 30
    write(place, challenges)
    training = json.loads((place / "arc-agi_training_challenges.json").read_text())
    for pair in (*training["t0"]["train"], *training["t0"]["test"]):
        pair["input"] = [[2] * 30] * 30
    (place / "arc-agi_training_challenges.json").write_text(json.dumps(training))
    with pytest.warns(UserWarning, match="2 of 4 tasks have no pair of at most 99 tokens and are not learnt"):
        learnt = read_corpus(place, max_tokens=99, transductive=place / "asked.json", hold_out=frozenset(["c0"]))
    assert learnt.task_ids == ("t1", "c1") and len(learnt.free) == 2 and not learnt.held_out
    ids = {tuple(pair.input.ravel().tolist()): learnt.task_ids[index] for index, pair in learnt.pairs}
    told = [*training["t1"]["train"], *challenges["c1"]["train"]]
    assert [ids[tuple(np.ravel(pair["input"]).tolist())] for pair in told] == ["t1"] * 4 + ["c1"] * 4


def test_without_evaluation_tasks_it_is_told_that_no_leak_can_be_found(place, tmp_path):
    with pytest.warns(UserWarning, match="has no evaluation challenges, so no leak can be found; give --challenges"):
        pretrain(place, tmp_path / "out", PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1))


def test_the_evaluation_tasks_beside_the_training_ones_are_guarded_unless_others_are_given(place, tmp_path):
    training, short = json.loads((place / "arc-agi_training_challenges.json").read_text()), PretrainConfig(1.0)
    (place / "arc-agi_evaluation_challenges.json").write_text(json.dumps({"twin": training["t1"]}))
    with pytest.raises(InputError, match="leak: training task t1 shows what task twin of .*evaluation_challenges"):
        pretrain(place, tmp_path / "no", short)
    write(place, {"other": training["t0"]})
    with pytest.raises(InputError, match="leak: training task t0 shows what task other of .*asked"):
        pretrain(place, tmp_path / "no", short, guard=place / "asked.json")


def test_a_base_that_learnt_a_task_under_another_id_is_told_of(place, tmp_path):
    short = PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1)
    pretrain(place, tmp_path / "base", short, guard=place / "asked.json")
    training = json.loads((place / "arc-agi_training_challenges.json").read_text())
    write(place, {"twin": training["t1"], "c0": asked(place)["c0"]})
    options = {"base": tmp_path / "base", "exclude": frozenset(["t1"])}
    with pytest.warns(UserWarning, match="has learnt task t1, which shows what is asked by task twin"):
        pretrain(place, tmp_path / "one", short, guard=place / "asked.json", **options)
    with pytest.warns(UserWarning, match="with its answers task t1, which shows what is asked by task twin"):
        pretrain(place, tmp_path / "two", short, transductive=place / "asked.json", **options)
    assert set(known_tasks(tmp_path / "one", place / "asked.json", place)) == {"twin"}


def test_a_file_of_no_usable_task_is_no_challenge_file(place):
    (place / "solutions.json").write_text(json.dumps({"c0": [grids(3)[0]]}))
    with pytest.raises(InputError, match="solutions.json: no usable task: .*c0.*; give a challenge file"):
        corpus(place, transductive=place / "solutions.json")


def test_a_shape_beside_a_base_is_refused(capsys):
    assert main(["pretrain", "--out", "x", "--budget-s", "1", "--base", "y", "--heads", "4"]) == 2
    assert "--heads 4: the base has its own shape; leave it out" in capsys.readouterr().err


def test_the_command_refuses_data_that_shows_its_own_evaluation_tasks(place, capsys):
    training = json.loads((place / "arc-agi_training_challenges.json").read_text())
    entry = {"train": training["t1"]["train"][:2], "test": [{"input": [[7]]}]}
    (place / "arc-agi_evaluation_challenges.json").write_text(json.dumps({"e": entry}))
    line = ["pretrain", "--data", str(place), "--out", str(place / "model"), "--budget-s", "5"]
    assert main(line) == 2 and not (place / "model").exists()
    assert "leak: training task t1 shows what task e" in capsys.readouterr().err


def test_a_repeated_pair_is_learnt_once_and_a_kept_out_one_never(place):
    """t0's test pair stands among its demonstrations and its generated pairs too, one demonstration twice."""
    challenges = json.loads((place / "arc-agi_training_challenges.json").read_text())
    (solution,) = json.loads((place / "arc-agi_training_solutions.json").read_text())["t0"]
    test = {**challenges["t0"]["test"][0], "output": solution}
    challenges["t0"]["train"] += [test, challenges["t0"]["train"][0]]
    (place / "arc-agi_training_challenges.json").write_text(json.dumps(challenges))
    (place / "extra.json").write_text(json.dumps({"t0": [test, challenges["t0"]["train"][1]]}))
    told = corpus(place, extra=place / "extra.json", hold_out=frozenset(["t0"]))
    learnt = [pair.input.tolist() for index, pair in told.pairs if told.task_ids[index] == "t0"]
    assert learnt == [pair["input"] for pair in challenges["t0"]["train"][:4]]
    assert [pair.input.tolist() for _, pair in told.held_out] == [test["input"]]


def test_original_pairs_stand_as_often_as_is_said_and_generated_ones_once(place):
    made = {"t0": [{"input": g, "output": g} for g in grids(20)]}
    (place / "extra.json").write_text(json.dumps(made))
    once, often = (
        read_corpus(place, place / "extra.json", max_tokens=99, original_views=n, hold_out=frozenset(["t1"]))
        for n in (1, 3)
    )
    counts = Counter(pair.input.tobytes() for _, pair in often.pairs)
    assert all(counts[np.array(g, np.uint8).tobytes()] == 1 for g in grids(20))
    assert sorted(counts.values()) == [1] * 5 + [3] * 9 and len(once.pairs) == 14
    assert len(often.held_out) == len(once.held_out) == 1


def test_generated_pairs_come_as_one_file_or_as_a_folder(place):
    made = [{"input": g, "output": g} for g in grids(20, 3)]
    (place / "re_arc" / "tasks").mkdir(parents=True)
    (place / "re_arc" / "tasks" / "t1.json").write_text(json.dumps(made))
    (place / "re_arc" / "tasks" / "unknown.json").write_text(json.dumps(made))
    (place / "extra.json").write_text(json.dumps({"t1": made, "unknown": made}))
    for path in (place / "extra.json", place / "re_arc", place / "re_arc" / "tasks"):
        assert len(corpus(place, extra=path).pairs) == 10 + 3, path


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[[1]]", "a JSON list, no object"),
        ('{"t1": 3}', "task t1: 3 is no list"),
        ("{", "Expecting"),
        (None, "no <id>"),
    ],
)
def test_generated_pairs_of_another_layout_are_refused(place, content, fault):
    path = place / "extra.json"
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(
        InputError, match=rf"extra pairs .*extra\.json.*{fault}.*; give a JSON file .* or RE-ARC's folder"
    ):
        corpus(place, extra=path)


def test_damaged_gzip_is_one_error(place):
    packed = bytearray(gzip.compress(json.dumps({"t1": [{"input": g, "output": g} for g in grids(20)]}).encode()))
    for at, value in ((len(packed) // 2, packed[len(packed) // 2] ^ 0xFF), (12, 0xFF)):
        (place / "extra.json.gz").write_bytes(packed[:at] + bytes([value]) + packed[at + 1 :])
        with pytest.raises(InputError, match=r"extra pairs .*extra\.json\.gz: .*; give a JSON file"):
            corpus(place, extra=place / "extra.json.gz")


def test_only_demonstrations_of_the_challenge_file_are_learnt(place):
    """The file holds its tests' outputs, and the extra pairs repeat them under the task's id: neither may come in."""
    tests = {t: task["test"] for t, task in asked(place).items()}
    (place / "extra.json").write_text(json.dumps(tests))
    learnt = corpus(place, extra=place / "extra.json", transductive=place / "asked.json")
    seen = {pair.input.tobytes() for _, pair in learnt.pairs}
    for task_id, (test,) in tests.items():
        assert np.array(test["input"], np.uint8).tobytes() not in seen, task_id
    assert learnt.shown == {"c0", "c1"}
    assert sum(learnt.task_ids[i] in learnt.shown for i, _ in learnt.pairs) == 8


def test_a_base_that_knows_a_task_is_refused_unless_from_its_demonstrations(place, tmp_path):
    short = PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1)
    transductive = {"transductive": place / "asked.json"}
    pretrain(place, tmp_path / "shown", short, **transductive)
    pretrain(None, tmp_path / "again", short, base=tmp_path / "shown", **transductive)
    with pytest.raises(InputError, match="leak: the base model has learnt task c0"):
        pretrain(place, tmp_path / "no", short, base=tmp_path / "shown", guard=place / "asked.json")
    write(place, {"t0": asked(place)["c0"]})
    with pytest.raises(InputError, match="leak: the base model has learnt with its answers task t0"):
        pretrain(None, tmp_path / "no", short, base=tmp_path / "shown", **transductive)


def test_a_base_may_have_been_shown_what_a_transductive_run_leaves_out(place, tmp_path):
    """c1's demonstrations alone: not where another file than the transductive one is asked."""
    short = PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1)
    pretrain(place, tmp_path / "shown", short, transductive=place / "asked.json")
    options = {"base": tmp_path / "shown", "exclude": frozenset(["c1"]), "transductive": place / "asked.json"}
    pretrain(None, tmp_path / "next", short, **options)
    made = [{"input": g, "output": g} for g in grids(20)]
    (place / "other.json").write_text(json.dumps({"c1": {"train": made[:4], "test": made[4:]}}))
    with pytest.raises(InputError, match="leak: the base model has learnt task c1"):
        pretrain(None, tmp_path / "no", short, guard=place / "other.json", **options)
    told = json.loads((tmp_path / "shown" / "config.json").read_text())
    told["learnt_ids"].append("c1")
    (tmp_path / "shown" / "config.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="leak: the base model has learnt with its answers task c1"):
        pretrain(None, tmp_path / "no", short, **options)


def test_a_base_that_was_shown_what_the_transductive_file_asks_is_refused(place, tmp_path):
    """t1 by its demonstrations alone, and under another id."""
    short = PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1)
    training = json.loads((place / "arc-agi_training_challenges.json").read_text())
    options = {"exclude": frozenset(["t1"]), "transductive": place / "asked.json"}
    write(place, {"t1": training["t1"]})
    pretrain(place, tmp_path / "shown", short, **options)
    write(place, {"c0": asked(place)["t1"] | {"test": training["t1"]["train"][:1]}})
    told = "the base model has learnt task t1, which shows .* task c0 of .*asked.json"
    with pytest.raises(InputError, match=f"leak: {told}; .* give --exclude t1 and never count c0"):
        start.make_net(corpus(place, **options), short, tmp_path / "shown", place / "asked.json", place)
    with pytest.warns(UserWarning, match=f"{told}; no score of what is trained may count c0"):
        pretrain(place, tmp_path / "told", short, base=tmp_path / "shown", **options)


def test_a_task_that_the_base_of_the_base_learnt_is_refused(place, tmp_path):
    short = PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1)
    transductive = {"transductive": place / "asked.json"}
    pretrain(place, tmp_path / "first", short)
    told = json.loads((tmp_path / "first" / "config.json").read_text())
    assert told.pop("learnt_ids") == ["t0", "t1"]
    (tmp_path / "first" / "config.json").write_text(json.dumps(told))  # as they were before this field
    pretrain(None, tmp_path / "second", short, base=tmp_path / "first", **transductive)
    made = [{"input": g, "output": g} for g in grids(20)]
    (place / "other.json").write_text(json.dumps({"t0": {"train": made[:4], "test": made[4:]}}))
    with pytest.raises(InputError, match="leak: the base model has learnt .*task t0"):
        pretrain(None, tmp_path / "no", short, base=tmp_path / "second", guard=place / "other.json", **transductive)


def test_a_task_that_the_base_of_the_base_was_shown_is_refused(place, tmp_path):
    short = PretrainConfig(1e9, width=32, layers=1, heads=2, max_steps=1)
    pretrain(place, tmp_path / "first", short, transductive=place / "asked.json")
    made = [{"input": g, "output": g} for g in grids(20)]
    (place / "other.json").write_text(json.dumps({"d0": {"train": made[:4], "test": made[4:]}}))
    pretrain(None, tmp_path / "second", short, base=tmp_path / "first", transductive=place / "other.json")
    assert set(known_tasks(tmp_path / "second", place / "asked.json")) == {"c0", "c1"}
    assert set(known_tasks(tmp_path / "second", place / "other.json")) == {"d0"}
    with pytest.raises(InputError, match="leak: the base model has learnt task c0"):
        pretrain(place, tmp_path / "no", short, base=tmp_path / "second", guard=place / "asked.json")


def test_solutions_that_do_not_fit_are_one_error(place):
    path = place / "arc-agi_training_solutions.json"
    solutions = json.loads(path.read_text())
    for told in ({"t1": solutions["t1"]}, {name: grids * 2 for name, grids in solutions.items()}):
        path.write_text(json.dumps(told))
        with pytest.raises(InputError, match=r"task t0 has 1 test inputs and [02] solutions; write the edition anew"):
            corpus(place)


def test_a_transductive_model_answers_the_tasks_without_adaptation(place, tmp_path):
    """Its vectors for c0 and c1 turn inputs it has not seen; the same model under swapped vectors does not."""
    challenges = {}
    for i, colors in enumerate(([0, 1, 2], [0, 2, 1])):
        made = {repr(g): {"input": g, "output": np.array(colors)[g].tolist()} for g in grids(30 + i, 61)}
        *train, test = made.values()
        challenges[f"c{i}"] = {"train": train, "test": [test]}
    write(place, challenges)
    pretrain(None, tmp_path / "model", TOY, transductive=place / "asked.json")
    model = load_model(tmp_path / "model", device="cpu")
    config = preset("grid", ["adapt.method=none", "decode.views=1", "rescore.views=1"])

    def solved(vectors_of):
        right = 0
        for task_id, entry in challenges.items():
            train, (test,) = (
                [Pair(*(np.array(p[k], np.uint8) for k in ("input", "output"))) for p in entry[part]]
                for part in ("train", "test")
            )
            result = solve_task(model, Task(vectors_of(task_id), tuple(train), (test,)), config, seed=0)
            right += np.array_equal(result.attempts[0][0], test.output)
        return right

    assert solved(lambda t: t) == 2
    assert solved(lambda t: {"c0": "c1", "c1": "c0"}[t]) == 0


def test_color_rules_free_what_they_say():
    def pair(a, b):
        return Pair(np.array([a], np.uint8), np.array([b], np.uint8))

    pairs = (pair([0, 1, 2], [3, 1]), pair([0, 1, 4], [3, 4]))
    assert permutable(pairs, "none") == ()
    assert permutable(pairs, "all") == tuple(range(1, 10))
    assert permutable(pairs, "outputs_fixed") == (1, 2, 4)
    assert set(permutable(pairs, "free")) == set(range(1, 10)) - {1, 3}


def test_garbage_is_looked_for_again_after_reading():
    with pytest.raises(ValueError), uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()  # as it was found
        raise ValueError
    assert gc.isenabled()
