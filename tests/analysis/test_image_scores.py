"""Scores of predicted images mean what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from cytoray_analysis.errors import ImageError
from cytoray_analysis.tasks.image_scores import HIGHEST_PSNR, metric_names, score_images, true_range


def picture(seed: int = 0, shape: tuple[int, ...] = (1, 48, 40)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.sin(np.arange(shape[-2]) / 5), np.cos(np.arange(shape[-1]) / 7))
    return (1000 + 200 * smooth + rng.normal(0, 20, shape)).astype(np.float32)


def test_a_perfect_prediction_scores_perfectly() -> None:
    truth = picture()
    assert score_images([truth], [truth], ["stain"]) == {
        "pearson": pytest.approx(1.0),
        "ssim": pytest.approx(1.0),
        "psnr": HIGHEST_PSNR,
        "nrmse": 0.0,
    }


def test_the_true_mean_scores_an_error_of_one_and_no_correlation() -> None:
    truth = picture()
    scores = score_images([np.full_like(truth, truth.mean())], [truth], ["stain"])
    assert scores["nrmse"] == pytest.approx(1.0, abs=1e-4)
    assert scores["pearson"] == 0.0


def test_psnr_and_nrmse_follow_their_formulas() -> None:
    truth, error = picture(), np.random.default_rng(3).normal(0, 30, (1, 48, 40)).astype(np.float32)
    scores = score_images([truth + error], [truth], ["stain"])
    rms = np.sqrt(np.mean(np.square(error, dtype=np.float64)))
    low, high = np.percentile(truth, (0.1, 99.9))
    assert scores["psnr"] == pytest.approx(20 * np.log10((high - low) / rms), rel=1e-4)
    assert scores["nrmse"] == pytest.approx(rms / truth.std(), rel=1e-4)


def test_ssim_is_that_of_scikit_image_where_all_is_known() -> None:
    truth, answer = picture(0), picture(1)
    expected = structural_similarity(  # type: ignore[no-untyped-call]
        truth[0].astype(float),
        answer[0].astype(float),
        data_range=true_range(truth[0]),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1].mean()
    assert score_images([answer], [truth], ["stain"])["ssim"] == pytest.approx(float(expected))


@settings(max_examples=25, deadline=None)
@given(gain=st.floats(0.01, 50), offset=st.floats(-1e4, 1e4))
def test_correlation_does_not_depend_on_gain_and_offset(gain: float, offset: float) -> None:
    truth, answer = picture(0).astype(np.float64), picture(1).astype(np.float64)
    plain = score_images([answer], [truth], ["stain"])["pearson"]
    assert score_images([answer * gain + offset], [truth], ["stain"])["pearson"] == pytest.approx(plain, abs=1e-6)


def test_unknown_pixels_do_not_count() -> None:
    truth, answer = picture(), picture(1)
    answer[:, :, 30:] = 1e6
    unknown = truth.copy()
    unknown[:, :, 30:] = np.nan
    masked = score_images([answer], [unknown], ["stain"])
    cut = score_images([answer[:, :, :30]], [truth[:, :, :30]], ["stain"])
    for name in ("pearson", "psnr", "nrmse"):
        assert masked[name] == pytest.approx(cut[name])
    assert masked["ssim"] == pytest.approx(cut["ssim"], abs=0.05)


def test_volumes_are_compared_plane_by_plane() -> None:
    truth, answer = picture(0, (1, 4, 48, 40)), picture(1, (1, 4, 48, 40))
    span = true_range(truth)
    planes = [
        structural_similarity(  # type: ignore[no-untyped-call]
            t.astype(float), a.astype(float), data_range=span, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )[1].mean()
        for t, a in zip(truth[0], answer[0], strict=True)
    ]  # fmt: skip
    assert score_images([answer], [truth], ["stain"])["ssim"] == pytest.approx(float(np.mean(planes)))


def test_images_count_alike_whatever_their_size() -> None:
    small, large = picture(0, (1, 20, 20)), picture(1, (1, 200, 180))
    scores = score_images([small, np.full_like(large, 5.0)], [small, large], ["stain"])
    assert scores["pearson"] == pytest.approx(0.5)


def test_channels_are_named_and_averaged() -> None:
    truth = picture(0, (2, 48, 40))
    answer = np.stack((truth[0], np.zeros_like(truth[1])))
    scores = score_images([answer], [truth], ["dna", "actin"])
    assert scores["pearson/dna"] == pytest.approx(1.0)
    assert scores["pearson/actin"] == 0.0
    assert scores["pearson"] == pytest.approx(0.5)
    assert next(iter(scores)) == "pearson"


def test_an_image_with_nothing_to_see_is_left_out() -> None:
    truth = picture()
    scores = score_images([truth, truth], [truth, np.full_like(truth, 7.0)], ["stain"])
    assert scores["pearson"] == pytest.approx(1.0)


@pytest.mark.parametrize(("told", "share"), [(1.0, 0.683), (2.0, 0.954), (0.1, 0.080)])
def test_coverage_is_the_share_of_errors_within_one_standard_deviation(told: float, share: float) -> None:
    rng = np.random.default_rng(0)
    truth = picture(0, (1, 200, 200))
    deviation = rng.uniform(5, 50, truth.shape)
    answer = truth + rng.normal(0, 1, truth.shape) * deviation
    scores = score_images([np.concatenate((answer, deviation * told))], [truth], ["stain"], uncertainty=True)
    assert scores["coverage68"] == pytest.approx(share, abs=0.01)


def test_a_constant_truth_has_no_score() -> None:
    flat = np.full((1, 32, 32), 5.0, np.float32)
    assert score_images([flat], [flat], ["stain"]) == {}


def test_metrics_are_named_without_images_too() -> None:
    assert set(metric_names(["dna", "actin"], uncertainty=True)) == {
        *(f"{m}{c}" for m in ("pearson", "ssim", "psnr", "nrmse") for c in ("", "/dna", "/actin")),
        "coverage68",
    }


def test_a_prediction_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="expected a prediction"):
        score_images([picture()[:, :-1]], [picture()], ["stain"])
