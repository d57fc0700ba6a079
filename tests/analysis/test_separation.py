"""Do vectors tell classes apart: each number by its definition."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from coseglib.analysis.channels import class_means, embed_in_plane, nearest_classes, selectivity, separation


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    classes = np.repeat(["a", "b", "c"], [8, 9, 10])
    centres = {"a": 0.0, "b": 1.5, "c": 3.0}
    return rng.normal(size=(27, 4)) + np.array([centres[c] for c in classes])[:, None], classes


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_classes_are_the_vote_of_the_five_nearest_others(blobs, metric):
    vectors, classes = blobs
    found = nearest_classes(vectors, classes, metric)
    for i, x in enumerate(vectors):

        def distance(j, x=x):
            y = vectors[j]
            return np.linalg.norm(x - y) if metric == "euclidean" else 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)

        nearest = sorted((j for j in range(len(vectors)) if j != i), key=distance)[:5]
        votes = {c: sum(classes[j] == c for j in nearest) for c in "abc"}
        assert found[i] == min(votes, key=lambda c: (-votes[c], c))


def test_separation_is_the_silhouette_by_its_definition_and_the_share_of_right_votes(blobs):
    vectors, classes = blobs
    widths = []
    for i, x in enumerate(vectors):
        mean = {
            c: np.mean([np.linalg.norm(x - y) for j, y in enumerate(vectors) if classes[j] == c and j != i])
            for c in "abc"
        }
        own, other = mean.pop(classes[i]), min(mean[c] for c in mean if c != classes[i])
        widths.append((other - own) / max(own, other))
    found = separation(vectors, classes)
    assert found["silhouette"] == pytest.approx(np.mean(widths))
    assert found["accuracy"] == np.mean(nearest_classes(vectors, classes) == classes) > 0.6
    with pytest.raises(ValueError, match="5 vectors: must be more than 5"):
        separation(vectors[:5], classes[:5])


def test_selectivity_is_the_share_of_variance_between_classes(blobs):
    vectors, classes = blobs
    vectors = np.column_stack([vectors, [{"a": 0, "b": 1, "c": 5}[c] for c in classes], np.ones(27)])
    found = selectivity(vectors, classes)
    for d, column in enumerate(vectors.T):
        within = sum((x - column[classes == c].mean()) ** 2 for x, c in zip(column, classes, strict=True))
        total = sum((x - column.mean()) ** 2 for x in column)
        assert found[d] == pytest.approx(1 - within / total if total else 0)
    assert found[4] == pytest.approx(1) and found[5] == 0


def test_class_means_are_rows_in_order_of_appearance(blobs):
    vectors, classes = blobs
    means = class_means(vectors[::-1], classes[::-1])
    assert means.index.tolist() == ["c", "b", "a"]
    np.testing.assert_allclose(means.loc["a"], vectors[:8].mean(axis=0))


@pytest.mark.parametrize("start", ["pca", "random"])
def test_a_seed_gives_the_same_picture_on_one_thread_and_on_two(start):
    vectors = load_digits().data[:300]
    planes = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            planes.append(embed_in_plane(vectors, start=start))
    np.testing.assert_array_equal(*planes)


def test_the_plane_keeps_planted_classes_and_refuses_what_makes_no_sense(blobs):
    vectors, _ = blobs
    plane = embed_in_plane(10 * vectors, perplexity=5, seed=3)
    assert plane.shape == (27, 2) and np.array_equal(plane, embed_in_plane(10 * vectors, perplexity=5, seed=3))
    centred = vectors - vectors.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    np.testing.assert_allclose(np.abs(embed_in_plane(vectors, "pca")), np.abs(centred @ directions.T), atol=1e-8)
    with pytest.raises(ValueError, match="between 0 and 27"):
        embed_in_plane(vectors, perplexity=27)
    with pytest.raises(ValueError, match="'tsne' or 'pca'"):
        embed_in_plane(vectors, "umap")
    for same in (0.0, 3.0):
        with pytest.raises(ValueError, match="vectors without spread"):
            embed_in_plane(np.full_like(vectors, same))
