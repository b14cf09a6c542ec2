"""The page of a run in a real browser: no console error, no empty figure, no missing number, nothing cut."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml
from browser import opened
from nni_runs import REPOSITORY

from nni_dynconv.experiments import trial
from nni_dynconv.reporting import compare_runs, write_report
from nni_dynconv.settings import check_class_args


@pytest.fixture(scope="module")
def bare(tmp_path_factory, run):
    """What is left of a run that knows nothing but its network: the page is shorter, and says what it lacks."""
    folder = tmp_path_factory.mktemp("bare") / "run"
    shutil.copytree(run, folder)
    for name in ("history.jsonl", "baselines.json", "clusters.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "slides")
    write_report(folder)
    return folder


def whole(page):
    """Check what every page must be; return what stands on it."""
    assert page["console"] == [] and page["outside"] == []
    assert page["figures"] and page["marks"] == [count for count in page["marks"] if count]
    for figure in page["figures"]:
        assert figure["drawn"] and all(width > 5 and height > 5 for width, height in figure["drawn"]), figure
        assert figure["text"].strip()
    assert all(width and height for width, height in page["images"])
    assert page["numbers"] and all(re.search(r"\d", one) for one in page["numbers"]), page["numbers"]
    assert not re.search(r"\b(nan|NaN|None|undefined|null|inf)\b", page["text"])
    assert all(page["links"])
    assert page["width"][0] <= page["width"][1], "something is wider than the window"
    return page


def test_the_page_of_a_run_is_whole_and_answers_five_questions_at_its_top(run, tmp_path):
    page = whole(opened(run / "report.html", tmp_path))
    assert all(page["moved"]) and len(page["moved"]) == 4  # two sites, two rows of slides
    questions = ("What won?", "By how much?", "How sure is that?", "What does it cost?", "What next?")
    places = [page["text"].index(one) for one in questions]
    assert "With few sets of weights" in page["text"]
    assert places == sorted(places) and places[-1] < page["text"].index("What was searched, and what won")


def test_the_page_of_a_run_that_lacks_much_is_whole_and_says_so(bare, tmp_path):
    page = whole(opened(bare / "report.html", tmp_path, 500))
    assert "What this page cannot show" in page["text"] and "nothing was compared" in page["text"]


def test_the_page_is_whole_in_a_narrow_window_and_dark(run, tmp_path):
    page = whole(opened(run / "report.html", tmp_path, 500, dark=True))
    assert page["paper"] == "rgb(20, 23, 27)"


def test_the_page_of_several_runs_is_whole(run, bare, tmp_path):
    path = tmp_path / "compared.html"
    path.write_text(compare_runs([run, bare]).page())
    whole(opened(path, tmp_path))


@pytest.mark.whole
def test_a_page_that_is_broken_is_seen(run, tmp_path):
    """So that the checks above are known to see: a script that raises, a figure without marks, no image."""
    text = (run / "report.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace('"use strict";', '"use strict"; setTimeout(() => nothing.there, 1);'))
    assert any("nothing is not defined" in line for line in opened(broken, tmp_path)["console"])
    broken.write_text(re.sub(r"<polyline.*?</polyline>", "", text, flags=re.DOTALL).replace('class="grid"', ""))
    assert 0 in opened(broken, tmp_path)["marks"]
    broken.write_text(text.replace("data:image/png;base64,", "data:image/png;base64,AAAA"))
    assert [0, 0] in opened(broken, tmp_path)["images"]


def test_words_of_a_space_cannot_break_the_page(run, tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(run, folder)
    history = (folder / "history.jsonl").read_text().replace("wide3", "</script><b>wide3&")
    (folder / "history.jsonl").write_text(history)
    facts = json.loads((folder / "run.json").read_text())
    facts["problems"] = {"report": "<img src=x onerror=alert(1)>"}
    (folder / "run.json").write_text(json.dumps(facts))
    write_report(folder)
    page = whole(opened(folder / "report.html", tmp_path))
    assert "<img src=x onerror=alert(1)>" in page["text"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The quickstart's search, as its YAML has it, of a few steps."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    class_args = yaml.safe_load((REPOSITORY / "configs" / "one_shot.yml").read_text())["tuner"]["classArgs"]
    few = {"epochs": 1, "batches": 2, "validation_batches": 2, "batch_size": 4}
    given = {**class_args, "evaluator_args": few, "baselines": {"random": 1}, "strategy": {"final_epochs": 1}}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "examples"))
        patch.chdir(folder.parent)
        trial.search(check_class_args(given).to_dict(), folder)
    return folder


@pytest.mark.whole
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (500, True)])
def test_the_page_of_the_quickstart_is_whole_with_frames_before_and_after(quickstart, width, dark, tmp_path):
    page = whole(opened(quickstart / "report.html", tmp_path, width, dark))
    assert "A frame of the unseen video, before and after" in page["text"]
    assert "test_psnr/unseen_video" in page["text"] and page["moved"].count(False) == 1  # the clean frame
