"""Pictures: their size and their text, not their looks."""

import struct

import numpy as np
import pytest

from pgcli.pictures.curves import MOST, Curve, Panel, _fitting, draw
from pgcli.statistics.curves import Band


def curve(label, seeds=3, scale=1.0):
    steps = np.linspace(0, 1000, 20)
    value = scale * steps
    there = np.where(steps > 700, seeds - 1, seeds)
    return Curve(label, steps, Band(value, 0.9 * value, 1.1 * value, there), seeds)


def size(png):
    assert png.startswith(b"\x89PNG\r\n")
    return struct.unpack(">II", png[16:24])


def test_a_picture_is_wide_and_the_same_each_time():
    panels = [Panel("CartPole-v1", [curve("estimator=rtg"), curve("estimator=gae")], 475.0)]
    found = draw(panels, "return")
    width, height = size(found["png"])
    assert width / height == pytest.approx(16 / 9, rel=0.15)
    assert width >= 1500
    assert found == draw(panels, "return")
    assert found["svg"].startswith(b"<?xml")


def test_nothing_to_draw_is_no_picture():
    assert draw([], "return") == {}


def test_zeros_and_formulas_are_drawn_too():
    nasty = curve("x=$\\frac{$, y=${oc.env:X}, <&>", scale=0.0)
    found = draw([Panel("$\\bad$", [nasty]), Panel("b", [curve("c", 1)])], "variance", log=True)
    assert set(found) == {"png", "svg"}


def test_a_hundred_settings_get_as_many_lines_as_can_be_told_apart():
    found = draw([Panel("a", [curve(f"optimizer.lr={i}") for i in range(100)])], "return")
    assert found["svg"].count(b'id="FillBetweenPolyCollection') == MOST


@pytest.mark.parametrize("count", [1, 2, 7, 21])
@pytest.mark.parametrize("length", [5, 30, 200])
def test_a_legend_fits_its_width(count, length):
    columns, scale = _fitting(["x" * length] * count, 9.6)
    assert 1 <= columns <= count
    assert columns * (0.114 * length + 0.95) * scale <= 9.6 + 1e-9


def test_a_band_beyond_what_an_axis_can_hold_is_drawn_without_a_word():
    """As two seeds of a variance may have it; warnings are errors here."""
    one = curve("few", 2)
    band = one.band
    wide = Band(band.value + 1, np.full(20, 1e-258), np.full(20, 1e306), band.seeds)
    found = draw([Panel("a", [Curve("few", one.steps, wide, 2)])], "variance", log=True)
    assert found["png"].startswith(b"\x89PNG")
