"""The denoising benchmark: contenders, what they cost, resuming, verdicts, and that the page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("av", reason="the clips are decoded with PyAV (extra `examples`)")

from benchmarks.quality import denoising, denoising_contenders, denoising_plot, denoising_report, denoising_search
from benchmarks.quality import denoising_training as training
from nni_dynconv.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "quality" / "denoising.json"
SAMPLE = {"filter": "conv5", "first": "conv3", "second": "separable5"}
NAME = "conv5-conv3-separable5"
TINY = training.Settings((2,), (0, 1), 2, 2, (0.01,), 4, 2, 2)


class TestContenders:
    def test_all_give_one_frame_of_the_same_size(self):
        frames = torch.randn(2, 3, 16, 16)
        for contender in (*denoising_contenders.DYNAMICS, *denoising_contenders.RIVALS):
            net = denoising_contenders.make(contender, SAMPLE, 2)
            assert net(frames, frames).shape == (2, 1, 16, 16), contender

    def test_film_scales_and_shifts_each_channel_of_a_static_convolution(self):
        layer, x = denoising_contenders.FilmConv2d(3, 2, 3, padding=1), torch.randn(4, 3, 6, 6)
        layer.code = torch.randn(4, 32)
        torch.testing.assert_close(layer(x), layer.conv(x))
        layer.affine.bias.data = torch.tensor([1.0, 0.0, 5.0, 7.0])
        expected = layer.conv(x) * torch.tensor([2.0, 1.0])[:, None, None] + torch.tensor([5.0, 7.0])[:, None, None]
        torch.testing.assert_close(layer(x), expected)

    def test_a_mixture_sums_its_experts_by_each_samples_own_routing(self):
        layer, x = denoising_contenders.MixtureConv2d(3, 2, 3, padding=1), torch.randn(2, 3, 6, 6)
        layer.code = torch.randn(2, 32)
        for sample, code in enumerate(layer.code):
            flat = layer.routing(code).sigmoid() @ layer.experts
            expected = F.conv2d(x[sample], flat[:54].view(2, 3, 3, 3), flat[54:], padding=1)
            torch.testing.assert_close(layer(x)[sample], expected)

    @pytest.mark.parametrize("contender", denoising_contenders.DYNAMICS)
    def test_the_controller_is_counted_once_for_a_tile(self, contender):
        plain, whole = (denoising_contenders.cost(name, SAMPLE, 4) for name in ("static_twin", contender))
        sites = denoising_contenders.make(contender, SAMPLE, 4).source.asked.values()
        made = [site.num_generated for site in sites]
        rows = [spec.shape[0] if len(spec.shape) > 1 else 1 for site in sites for spec in site.specs]
        chunks = [-(-numel // 64) for numel in made]
        code = 32 + 2  # a context's, and its size in two numbers
        controller = {
            "dynamic": code * 32 * sum(rows) + 32 * sum(made),  # a share for each expert and row, and the sums
            "dynamic_chunked": 16 * 128 * (len(sites) + max(chunks))
            + code * 128
            + sum(chunks) * (128 * 128 + 128 * 64),
        }
        encoder = 15 * 15 * 75 * 8 + 8 * 32 + 32 * 32  # filters at 15 x 15 places, and two linear maps
        assert whole - plain == encoder + controller[contender]

    @pytest.mark.parametrize("rival", denoising_contenders.RIVALS[1:])
    def test_a_rival_is_the_narrowest_that_costs_no_less(self, rival):
        measure = denoising_contenders.parameters if rival.endswith("parameters") else denoising_contenders.cost
        least = measure("dynamic", SAMPLE, 3)
        width = denoising_contenders.matched_width(rival, SAMPLE, 3)
        assert measure(rival, SAMPLE, width) >= least
        assert width == 1 or measure(rival, SAMPLE, width - 1) < least

    def test_the_space_has_eighty_architectures_that_can_be_named(self):
        names = {training.name_of(sample) for sample in denoising_contenders.architectures()}
        assert len(names) == 80 and training.sample_of(NAME) == SAMPLE and NAME in names


OPTIMUM = ("dilated5", "conv5", "skip")


class TestWork:
    @pytest.mark.whole
    def test_a_finished_run_is_not_done_again_and_another_seed_is(self, tmp_path, monkeypatch):
        job = training.Job("static_twin", NAME, 2, 0.01, 0)
        reached = training.DenoisingLedger(tmp_path / "a.json", TINY).psnr(job)
        again = training.DenoisingLedger(tmp_path / "a.json", TINY)
        monkeypatch.setattr(training, "run", lambda job, settings: {"psnr": {"unseen_video": 1.0}, "seconds": 0.0})
        assert again.psnr(job) == reached and set(reached) == {"validation", "unseen_shots", "unseen_video"}
        assert again.psnr(job._replace(seed=1)) == {"unseen_video": 1.0}

    @pytest.mark.whole
    def test_the_seed_decides_a_run(self):
        job = training.Job("dynamic", NAME, 2, 0.01, 0)
        first, again, other = (training.run(one, TINY)["psnr"] for one in (job, job, job._replace(seed=1)))
        assert first == again != other

    def test_results_of_other_settings_are_refused(self, tmp_path):
        training.DenoisingLedger(tmp_path / "a.json", TINY).note("runs", "one", {})
        with pytest.raises(ConfigError, match=r"a\.json: `steps` is 2 there, but 12 now\. Name another file with"):
            training.DenoisingLedger(tmp_path / "a.json", training.Settings((2,), (0, 1), 12, 2, (0.01,), 4, 2, 2))

    @pytest.mark.whole
    def test_a_search_scores_all_and_trains_the_neighbours_of_the_best(self, tmp_path, monkeypatch):
        jobs = []
        monkeypatch.setattr(training, "run", lambda job, settings: jobs.append(job) or reach(job))

        def reach(job):
            ahead = sum(a == b for a, b in zip(job.architecture.split("-"), OPTIMUM, strict=True))
            return {"psnr": {"validation": ahead, "unseen_video": -ahead}, "seconds": 0.0}

        found = denoising_search.search(2, training.DenoisingLedger(tmp_path / "a.json", TINY))
        assert len(found["supernet"]) == 80 and found["start"] == max(found["supernet"], key=found["supernet"].get)
        assert found["found"] == "-".join(OPTIMUM) and found["trained"][found["found"]] == 3
        names = {training.name_of(one) for one in denoising_contenders.architectures()}
        near = {name for name in names if sum(a != b for a, b in zip(name.split("-"), OPTIMUM, strict=True)) <= 1}
        assert len(near) == 11 and near <= set(found["trained"]) and {job.seed for job in jobs} == {100, 101}

    def test_a_descent_takes_the_best_of_each_choice_in_turn_until_none_changes(self):
        levels = {"conv5-conv3-conv3": 1.0, "conv5-conv5-conv3": 2.0, "conv5-conv5-skip": 3.0, "conv9-conv5-skip": 9.0}
        found = denoising_search.descend("conv7-conv3-conv3", lambda name: levels.get(name, 0.0))
        assert found == "conv9-conv5-skip"

    def test_learning_rates_are_chosen_on_validation_shots(self, tmp_path, monkeypatch):
        settings = training.Settings((2,), (0,), 2, 2, (0.1, 0.2), 4, 2, 2)
        ledger = training.DenoisingLedger(tmp_path / "a.json", settings)
        ledger.note("searches", "2", {"found": NAME})

        def reach(job, settings):
            ahead = job.learning_rate if job.contender == "film" else -job.learning_rate
            return {"psnr": {"validation": ahead, "unseen_video": -ahead}, "seconds": 0.0}

        monkeypatch.setattr(training, "run", reach)
        denoising.tune(ledger)
        rates = ledger.data["learning_rates"]
        assert rates.pop("film") == 0.2 and set(rates.values()) == {0.1}


def results(levels, drawn=(1.0, 2.0, 3.0)):
    """Results of one budget: two seeds, at one below and one above each level."""
    data = {
        "settings": {"widths": [2], "seeds": [0, 1], "steps": 1, "batch": 1, "rates": [0.1], "search_steps": 7},
        "searches": {"2": {"found": NAME, "supernet": {"conv7-conv3-0": 2.0, NAME: 1.0}, "trained": {NAME: 1.0}}},
        "widths": {training.width_key(*pair, NAME, 2): 3 for pair in denoising_contenders.PAIRS},
        "learning_rates": dict.fromkeys(denoising_report.NAMES, 0.1),
        "random": {"2": [f"conv7-conv3-{n}" for n in range(len(drawn))]},
        "runs": {},
        "sizes": {},
    }
    places = {
        (contender, training.structure(contender, NAME), 2 if contender in denoising_contenders.DYNAMICS else 3): level
        for contender, level in levels.items()
    }
    places |= {("dynamic", name, 2): level for name, level in zip(data["random"]["2"], drawn, strict=True)}
    for (contender, name, width), level in places.items():
        cost = 30 if "parameters" in contender else 9 if contender == "static_twin" else 10 + width
        sizes = {"multiply_adds": cost, "without_making": 9, "parameters": 5}
        data["sizes"][f"{contender}/{name}/{width}"] = sizes
        for seed, offset in enumerate((-1.0, 1.0)):
            psnr = dict.fromkeys(("validation", *training.TEST_SETS), level + offset)
            data["runs"][training.Job(contender, name, width, 0.1, seed).key] = {"psnr": psnr}
    return data


LEVELS = dict.fromkeys(denoising_report.NAMES, 20.0)


class TestReport:
    def test_it_says_what_the_search_cost_and_where_the_found_one_stands_in_the_supernet(self):
        found = denoising_report.summarise(results(LEVELS))
        assert found["searches"] == [{"budget": 2, "trained": 1, "place": 2, "of": 2}]
        section = denoising_report.section(found)
        assert "trained for 7 steps, scores all 2 architectures" in section and "is at place 2 of the" in section

    def test_the_lead_is_over_the_best_rival_of_the_budget(self):
        one, _, other, _ = denoising_report.summarise(results({**LEVELS, "dynamic": 25.0, "film": 24.5}))["front"]
        assert one["on_front"] and one["best_rival"] == "film" and one["lead"] == pytest.approx(0.5)
        assert not other["on_front"] and other["best_rival"] == "film" and other["lead"] == pytest.approx(-4.5)

    def test_the_controller_of_a_width_is_the_better_one_on_validation_shots(self):
        data = results({**LEVELS, "dynamic": 25.0, "dynamic_chunked": 24.0})
        data["runs"][training.Job("dynamic_chunked", NAME, 2, 0.1, 0).key]["psnr"]["validation"] = 40.0
        found = denoising_report.summarise(data)
        chosen = [(one["dynamic"], one["chosen"]) for one in found["front"][::2]]
        assert chosen == [("dynamic", False), ("dynamic_chunked", True)]
        assert "Width 2, chunked (chosen on validation shots), unseen video" in denoising_report.section(found)

    def test_who_is_behind_a_cheaper_rival_is_not_on_the_front(self):
        found = denoising_report.summarise(results({**LEVELS, "dynamic": 25.0, "static_twin": 26.0}))
        assert not found["front"][0]["on_front"]
        assert "NOT on the front; -1.00 dB against the best rival, static twin" in denoising_report.section(found)

    def test_who_is_behind_a_dearer_rival_is_on_the_front(self):
        found = denoising_report.summarise(results({**LEVELS, "dynamic": 25.0, "unet_equal_parameters": 26.0}))
        assert found["front"][0]["on_front"]

    def test_random_architectures_give_a_median_and_the_deviation_between_seeds(self):
        found = denoising_report.summarise(results({**LEVELS, "dynamic": 25.0}, (20.0, 21.0, 26.0)))["random"]
        place = found["sets"]["unseen_video"]
        assert place == pytest.approx({"searched": 25, "median": 21, "best": 26, "ahead": 4, "spread": 2**0.5})

    def test_the_section_replaces_itself_and_leaves_the_rest_of_the_page(self):
        page = "# Quality\n\n## Video denoising\n\nOld.\n\n## Rank\n\nOther.\n"
        new = denoising_report.replaced(page, "## Video denoising\n\nNew.\n")
        assert new == page.replace("Old", "New") == denoising_report.replaced(new, "## Video denoising\n\nNew.\n")

    def test_the_picture_shows_each_contender_with_its_cost(self, tmp_path):
        summary = denoising_report.summarise(results({**LEVELS, "dynamic": 25.0}))
        curves = denoising_plot.points(summary, "unseen_shots")
        assert curves["dynamic"] == [(12e-6, 25.0, pytest.approx(2**0.5))]
        assert [one.psnr for one in denoising_plot.random_points(summary, "unseen_shots")] == [1, 2, 3]
        denoising_plot.draw(summary, tmp_path / "front.png")
        assert (tmp_path / "front.png").stat().st_size > 10_000


class TestRecord:
    def test_the_summary_follows_from_the_runs(self):
        data = json.loads(RESULTS.read_text())
        assert data["summary"]["front"] == json.loads(json.dumps(denoising_report.summarise(data)))

    def test_the_page_holds_the_section_of_the_results(self):
        section = denoising_report.section(json.loads(RESULTS.read_text())["summary"]["front"])
        assert section in (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")

    def test_the_settings_are_those_of_the_command(self, tmp_path):
        training.DenoisingLedger(RESULTS, training.Settings())
