"""`module:Class` is imported, or looked up in its source."""

from __future__ import annotations

import pytest

from nni_dynconv.errors import ConfigError
from nni_dynconv.settings import check_class_args, load_object

ONE_SHOT = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}


def test_names_of_ones_own_classes_are_looked_up_in_the_source(tmp_path):
    with pytest.raises(ConfigError, match="`space` in .*There is no module `toy`, which `toy:Space` names"):
        check_class_args(ONE_SHOT, code_directory=tmp_path)
    (tmp_path / "toy.py").write_text("raise RuntimeError('never run')\nclass Spacy: ...\ndef evaluator(): ...\n")
    with pytest.raises(ConfigError, match="has no `Space`. Did you mean `Spacy`"):
        check_class_args(ONE_SHOT, code_directory=tmp_path)
    (tmp_path / "toy.py").write_text("class Space: ...\nfrom x import evaluator\n")
    check_class_args(ONE_SHOT, code_directory=tmp_path)


def test_an_object_that_is_not_there_is_told_in_words():
    assert load_object("fractions:Fraction").__name__ == "Fraction"
    with pytest.raises(ConfigError, match="There is no module `no_such_module`"):
        load_object("no_such_module:x")
    with pytest.raises(ConfigError, match="Module `fractions` has no `Fractoin`.*Did you mean `Fraction`"):
        load_object("fractions:Fractoin")
