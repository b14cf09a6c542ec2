"""Shape checks: names are bound once, and a disagreement shows both values."""

from __future__ import annotations

import pytest

from nni_dynconv.errors import ShapeError
from nni_dynconv.functional.checks import Axes


def test_names_are_bound_to_sizes():
    axes = Axes("here")
    axes.bind("x", (2, 3), "B C")
    axes.bind("y", (3, 4), "C D")
    assert [axes[name] for name in "BCD"] == [2, 3, 4]


def test_a_disagreement_shows_both_values_and_all_tensors():
    axes = Axes("here")
    axes.bind("x", (2, 3), "B C")
    with pytest.raises(
        ShapeError, match=r"^`here`: axis `C` is 3 in `x` but 5 in `y`.\n  x: B C = \(2, 3\)\n  y: C = \(5,\)$"
    ):
        axes.bind("y", (5,), "C")


def test_a_wrong_number_of_axes_says_which_are_needed():
    with pytest.raises(ShapeError, match=r"^`here`: `x` has 1 axes, \(2,\), but needs 2: B C.$"):
        Axes("here").bind("x", (2,), "B C")


def test_a_derived_size_says_where_it_comes_from():
    axes = Axes("here")
    axes.derive("C/G", 2, "`x` with `groups=3`")
    with pytest.raises(ShapeError, match=r"axis `C/G` is 2 in `x` with `groups=3` but 4 in `w`"):
        axes.bind("w", (4,), "C/G")


def test_one_name_twice_in_a_tensor_must_agree():
    with pytest.raises(ShapeError, match=r"axis `N` is 2 in `x` but 3 in `x`"):
        Axes("here").bind("x", (2, 3), "N N")
