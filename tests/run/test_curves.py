"""The picture of a training log shows both losses, and a log that is none is refused by name."""

import json

import pytest
from PIL import Image

from ttt_core.__main__ import main
from ttt_core.errors import InputError
from ttt_core.run.curves import write_curves

LINE = {"step": 1, "tokens": 1000, "flop": 1e9, "seconds": 2.0, "loss": 1.5, "held_out_nll": 1.6}


def colors_of(path, box=None):
    return {color for _, color in Image.open(path).convert("RGB").crop(box).getcolors(1 << 24)}


def test_a_log_of_one_line_shows_its_points(tmp_path):
    (tmp_path / "train_log.jsonl").write_text(json.dumps({**LINE, "held_out_nll": None, "utilisation": 0.5}) + "\n")
    picture = write_curves(tmp_path)
    middle_of_each = ((200, 100, 400, 300), (800, 100, 1000, 300))  # away from the legends
    assert all((0, 116, 217) in colors_of(picture, box) for box in middle_of_each)


def test_a_loss_of_zero_is_a_loss(tmp_path):
    (tmp_path / "train_log.jsonl").write_text(json.dumps({**LINE, "loss": 0.0}) + "\n")
    assert write_curves(tmp_path).is_file()


def test_a_last_line_cut_short_is_left_out(tmp_path):
    for last in ("", '{"step": 2, "epo'):
        (tmp_path / "train_log.jsonl").write_text(json.dumps(LINE) + "\n" + last)
        assert write_curves(tmp_path).is_file()
    with pytest.raises(InputError, match="give a folder that `pretrain` wrote"):  # one that was written whole
        (tmp_path / "train_log.jsonl").write_text(json.dumps(LINE) + "\n" + last + "\n")
        write_curves(tmp_path)


@pytest.mark.parametrize(("held_out", "is_shown"), [(1.6, True), (None, False)])
def test_the_held_out_loss_is_drawn_where_there_is_one(tmp_path, capsys, held_out, is_shown):
    log = [{**LINE, "tokens": 1000 * n, "loss": 2 / n, "held_out_nll": held_out and held_out / n} for n in (1, 2, 3)]
    (tmp_path / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "train_log.png")
    colors = colors_of(tmp_path / "train_log.png")
    assert (0, 116, 217) in colors and ((255, 65, 54) in colors) == is_shown


@pytest.mark.parametrize("content", ["", "{", '{"loss": 1}\n', "[]\n"])
def test_a_log_that_is_none_is_refused_by_name(tmp_path, content):
    (tmp_path / "train_log.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"train_log\.jsonl: .*; (give|wait)"):
        write_curves(tmp_path)
