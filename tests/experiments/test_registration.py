"""NNI learns the tuner's name through its own registration."""

from __future__ import annotations

import pytest

from nni_dynconv.commands import cli
from nni_dynconv.experiments import registration


@pytest.fixture(autouse=True)
def own_nni_config(tmp_path, monkeypatch):
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path / "nni"))


def test_registering_twice_changes_nothing_the_second_time(capsys):
    from nni.tools.package_utils import get_algo_meta

    assert not registration.is_registered()
    assert cli.main(["register"]) == 0
    assert get_algo_meta("DynamicWeightMutator").class_name == "nni_dynconv.tuner.DynamicWeightTuner"
    before = (registration.META_FILE, capsys.readouterr().out)
    assert "registered" in before[1]
    assert not registration.register()
    assert cli.main(["register"]) == 0
    assert "is registered with NNI already" in capsys.readouterr().out


def test_removing_takes_it_back_once():
    registration.register()
    assert registration.remove()
    assert not registration.is_registered()
    assert not registration.remove()
    assert cli.main(["register", "--remove"]) == 0


def test_nni_can_make_the_registered_tuner():
    from nni.tools.package_utils import create_builtin_class_instance

    registration.register()
    class_args = {"mode": "one_shot", "space": "toy:Space", "evaluator": "toy:evaluator"}
    assert create_builtin_class_instance("DynamicWeightMutator", class_args, "tuners").settings.mode == "one_shot"
