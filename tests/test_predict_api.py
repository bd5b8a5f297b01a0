"""``cpanet.load(path).fit(IMAGES, MASKS).predict(images)``: NumPy in and out, scikit-learn's manners."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

import cpanet
from cpanet import engine
from cpanet.checkpoint.description import describe
from cpanet.data import load_dataset, test_episodes, transforms
from cpanet.data.images import MAX_PIXELS
from cpanet.errors import UserError
from cpanet.feature_cache import ImageFeatures
from cpanet.metrics import predicted
from cpanet.predict import NotFittedError, Segmenter
from tests.checkpoints import trained_run
from tests.datasets import picture

IMAGES, MASKS = zip(*(picture(i) for i in range(3)))
IMAGE, MASK = IMAGES[0], MASKS[0]


@pytest.fixture(scope="module")
def run():
    return trained_run()


@pytest.fixture(scope="module")
def fitted(run):
    return cpanet.load(run).fit(IMAGES, MASKS)


def test_importing_starts_nothing():
    code = "import sys, cpanet; cpanet.load; sys.exit('jittor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_masks_come_out_in_the_size_of_each_picture(fitted):
    sizes = [(40, 40), (33, 57), (8, 90), (100, 31)]
    pictures = [picture(i, *size)[0] for i, size in enumerate(sizes)]
    probabilities = fitted.predict_proba(pictures)
    masks = fitted.predict(pictures)
    assert [p.shape for p in probabilities] == [m.shape for m in masks] == sizes
    for probability, mask in zip(probabilities, masks):
        assert probability.dtype == np.float32
        assert mask.dtype == bool
        assert 0 <= probability.min() <= probability.max() <= 1
        np.testing.assert_array_equal(mask, probability > 0.5)


def training_free():
    return cpanet.load(None, backbone="vgg16", weights="random", image_size=32)


def canvas(image):
    """A picture as a network of 32×32 pixels sees it."""
    return transforms.test(image, np.zeros(image.shape[:2], np.uint8), 32)[0]


@pytest.mark.parametrize("method", ["cpanet", "prototype"])
def test_the_same_masks_as_the_evaluation(run, method):
    dataset = load_dataset("embedded")
    episode = test_episodes(dataset, 0, 3, 0)[7]
    segmenter = cpanet.load(run) if method == "cpanet" else training_free()
    segmenter.set_params(tiling=False, threshold=0.5)
    segmenter.fit([dataset.images[i] for i in episode.supports], [dataset.masks[i] for i in episode.supports])
    found = segmenter.predict_proba([dataset.images[episode.query]])[0]
    model = segmenter.network.model
    features = ImageFeatures(model, dataset, [episode.query, *episode.supports], 32)
    ((_, difference),) = engine.predict_episodes(model, [episode], features, 1)
    at_canvas = canvas(dataset.images[episode.query])
    mine = next(iter(segmenter.network.differences([at_canvas], segmenter.prototype_)))
    np.testing.assert_allclose(mine, difference, atol=1e-5)
    # the evaluation enlarges with corners aligned, as the released code does: the same but for half a pixel
    mask = predicted(difference, *dataset.masks[episode.query].shape)
    assert np.mean((found > 0.5) == mask) > 0.97


def test_one_support_or_several_and_their_order(run):
    segmenter = cpanet.load(run)
    one = segmenter.fit(IMAGES[:1], MASKS[:1]).prototype_
    two = segmenter.fit(IMAGES[1:2], MASKS[1:2]).prototype_
    both = segmenter.fit(IMAGES[:2], MASKS[:2]).prototype_
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)
    turned = segmenter.fit(IMAGES[1::-1], MASKS[1::-1]).prototype_
    np.testing.assert_allclose(turned, both, atol=1e-6)
    assert segmenter.n_supports_ == 2


def test_masks_as_truth_values_as_one_and_as_255_are_the_same(run):
    segmenter = cpanet.load(run)
    prototypes = [segmenter.fit([IMAGE], [m]).prototype_ for m in (MASK, MASK * 255, MASK == 1)]
    np.testing.assert_array_equal(prototypes[0], prototypes[1])
    np.testing.assert_array_equal(prototypes[0], prototypes[2])


def test_a_threshold_that_is_given_cuts_where_the_network_says(run):
    """The difference of its two logits at 0, whatever the supports say; "auto" moves that and keeps the order."""
    query = picture(7)[0]
    free = training_free()
    for segmenter in (cpanet.load(run), free):
        segmenter.fit(IMAGES, MASKS)
        auto = segmenter.predict_proba([query])[0]
        given = segmenter.set_params(threshold=0.5).predict_proba([query])[0]
        (difference,) = segmenter.network.differences([canvas(query)], segmenter.prototype_)
        resized = cv2.resize(np.ascontiguousarray(difference), query.shape[1::-1])
        assert np.mean((given > 0.5) == (resized > 0)) > 0.999
        order = np.argsort(given, axis=None)
        assert (np.diff(auto.ravel()[order]) >= -1e-6).all()
    assert auto.max() - auto.min() > 0.2  # and no flat grey of cosines
    with pytest.raises(ValueError, match="'often': give a probability or 'auto'"):
        free.set_params(threshold="often").fit(IMAGES, MASKS)


def test_each_support_is_marked_from_the_others(run):
    segmenter = cpanet.load(run)
    assert segmenter.fit(IMAGES[:1], MASKS[:1]).agreement() == []
    found = segmenter.fit(IMAGES, MASKS).agreement()
    assert len(found) == 3
    alone = cpanet.load(run).fit(IMAGES[1:], MASKS[1:])
    alone.calibration_ = segmenter.calibration_
    marked, truth = alone.predict(IMAGES[:1])[0], MASKS[0] == 1
    expected = np.sum(marked & truth) / np.sum(marked | truth)
    assert found[0] == pytest.approx(expected, abs=0.1)  # on the canvas, not at the picture's size


def test_pictures_of_any_size_are_cut_up_up_to_the_limit_of_the_reader(fitted):
    assert len(fitted.tiles_of(6000, 5000)) > 1  # 30 megapixels
    large = np.broadcast_to(np.zeros((1, 1), np.uint8), (MAX_PIXELS // 10000 + 1, 10000))
    with pytest.raises(ValueError, match=r"picture 0 is 10000×15001; the limit is 150,000,000 pixels"):
        fitted.predict([large])


def test_grey_pictures_are_pictures(fitted):
    grey = picture(5)[0][..., 0]
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(fitted.predict_proba([grey])[0], fitted.predict_proba([as_rgb])[0])


def test_many_pictures_are_those_one_by_one(fitted):
    pictures = [picture(i)[0] for i in range(7)]
    together = fitted.predict_proba(pictures)
    for picture_, probability in zip(pictures, together):
        np.testing.assert_allclose(fitted.predict_proba([picture_])[0], probability, atol=1e-5)


def test_similarity_is_a_cosine_in_the_size_of_the_picture(fitted):
    (similarity,) = fitted.similarity([picture(2, 30, 50)[0]])
    assert similarity.shape == (30, 50)
    assert -1.001 <= similarity.min() <= similarity.max() <= 1.001


# ---------------------------------------------------------------------- scikit-learn's manners


def test_fit_returns_self_and_predict_needs_it(run):
    segmenter = Segmenter(run)
    for method in (segmenter.predict, segmenter.predict_proba, segmenter.similarity):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            method([IMAGE])
    assert segmenter.fit([IMAGE], [MASK]) is segmenter
    assert issubclass(NotFittedError, ValueError)


def test_parameters_are_those_of_the_constructor(run):
    segmenter = Segmenter(run, threshold=0.3, tiling=False)
    parameters = segmenter.get_params()
    assert parameters["checkpoint"] == run
    assert (parameters["threshold"], parameters["tiling"]) == (0.3, False)
    assert Segmenter(**parameters).get_params() == parameters  # as scikit-learn's clone does
    assert "threshold=0.3" in repr(segmenter)
    assert segmenter.set_params(threshold=0.9) is segmenter
    assert segmenter.threshold == 0.9
    with pytest.raises(ValueError, match="no parameter 'treshold'"):
        segmenter.set_params(treshold=1)


def test_a_higher_threshold_marks_less(fitted):
    image = picture(3)[0]
    fitted.set_params(threshold=0.5)
    probability = fitted.predict_proba([image])[0]
    between = float(np.quantile(probability, 0.75))
    try:
        mask = fitted.set_params(threshold=between).predict([image])[0]
        assert mask.mean() == pytest.approx(0.25, abs=0.05)
    finally:
        fitted.set_params(threshold="auto")


MISTAKES = [
    ([IMAGE], [MASK, MASK], "1 pictures and 2 masks"),
    ([], [], "no pictures"),
    (IMAGE, [MASK], "give a list of pictures"),
    ([IMAGE / 255], [MASK], "picture 0 is float64"),
    ([IMAGE], [MASK[:20]], r"mask 0 is \(20, 40\)"),
    ([IMAGE], [MASK * 7], "mask 0 holds other values"),
    ([IMAGE], [MASK * 0], "mask 0 marks no pixel"),
    ([IMAGE[:4]], [MASK[:4]], "each side needs 8"),
]


@pytest.mark.parametrize(("images", "masks", "message"), MISTAKES)
def test_what_is_no_support_is_named(fitted, images, masks, message):
    with pytest.raises(ValueError, match=message):
        fitted.fit(images, masks)


# ---------------------------------------------------------------------- checkpoints


def test_a_checkpoint_describes_itself(run):
    description = describe(run)
    assert description.path == run / "checkpoints" / "best.safetensors"
    assert description.image_size == 32
    assert description.picture_side == 200
    assert len(description.classes) == 8
    assert "Steel_Am" not in description.classes  # of fold 0, which it was tested on


def test_where_there_is_no_checkpoint(tmp_path):
    for path, message in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "holds no checkpoint"),
        (__file__, "weights are read from"),
    ):
        with pytest.raises(UserError, match=message):
            cpanet.load(path)


def test_supports_whose_defect_is_lost_are_numbered():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    seen, lost = np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    seen[64:160, 64:160] = True
    lost[101, 103] = True
    segmenter = Segmenter(None, backbone="vgg16", weights="random", image_size=32, device="cpu")
    assert segmenter.fit([image, image], [seen, lost]).lost() == [1]
