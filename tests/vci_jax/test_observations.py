"""What the paper says of each metric under linear maps, compiled, eager and on several devices.

Section 4 finds that fuzziness, squared distance and cosine similarity change under invertible
linear maps, which a linear probe undoes; corollary 5.4 that VCI does not.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

import vci_jax

CLASSES, DIM = 4, 6
BEFORE = ("fuzziness", "squared_distance", "cosine_similarity")


def draw():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % CLASSES
    features = rng.normal(size=(CLASSES, DIM))[labels] + rng.normal(size=(120, DIM))
    return features.astype(np.float32), labels.astype(np.int32)


def measure(features, labels):
    state = vci_jax.update(vci_jax.init(CLASSES, features.shape[1]), features, labels)
    return vci_jax.collapse_metrics(state)


def rotation():
    return np.linalg.qr(np.random.default_rng(1).normal(size=(DIM, DIM)))[0].astype(np.float32)


# Of condition number 3, 10 and 100.
MAPS = [rotation() * np.geomspace(1, 1 / c, DIM).astype(np.float32) for c in (3, 10, 100)]


class Observations(chex.TestCase, parameterized.TestCase):
    """Each law with ``jax.jit``, without, and with ``jax.pmap``."""

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_vci_is_invariant_and_only_vci(self):
        """Corollary 5.4 and observations 4.2 to 4.4: invertible linear maps."""
        features, labels = draw()
        metrics = self.variant(measure)
        plain = metrics(features, labels)
        for matrix in MAPS:
            mapped = metrics(features @ matrix, labels)
            np.testing.assert_allclose(mapped["vci"], plain["vci"], rtol=1e-4)
        for name in BEFORE:
            assert abs(mapped[name] / plain[name] - 1) > 0.1, name

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_rotations_and_scales_change_nothing(self):
        """What all four metrics share."""
        features, labels = draw()
        metrics = self.variant(measure)
        plain, turned = metrics(features, labels), metrics(3 * features @ rotation(), labels)
        for name in ("vci", *BEFORE):
            np.testing.assert_allclose(turned[name], plain[name], rtol=1e-4, err_msg=name)

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_the_counter_example_to_fuzziness(self):
        """Sigma_B = diag(1, 0), Sigma_W = I and A = [[1, 1], [0, 1]]: 1 becomes 2, VCI stays."""
        sides = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
        mean = np.array([1, 0], np.float32)
        features = np.concatenate([sides + mean, sides - mean])
        labels = np.repeat([0, 1], 4).astype(np.int32)
        metrics = self.variant(measure)
        plain = metrics(features, labels)
        sheared = metrics(features @ np.array([[1, 0], [1, 1]], np.float32), labels)
        np.testing.assert_allclose([plain["vci"], sheared["vci"]], [0.5, 0.5], rtol=1e-6)
        # The trace itself; fuzziness divides it by K.
        np.testing.assert_allclose(2 * plain["fuzziness"], 1, rtol=1e-6)
        np.testing.assert_allclose(2 * sheared["fuzziness"], 2, rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_variability_that_no_linear_probe_sees(self):
        """Proposition 4.1: +a v and -a v on pairs of a class, v orthogonal to the class means.

        Squared distance grows without bound; with a direction of its own VCI hardly moves.
        """
        features, labels = draw()
        features = np.concatenate([features, np.zeros((120, 1), np.float32)], axis=1)
        order = np.argsort(labels, kind="stable")
        features, labels = features[order], labels[order]
        features[:, -1] = np.tile([1.0, -1.0], 60)
        metrics = self.variant(measure)
        near = metrics(features, labels)
        features[:, -1] *= 100
        far = metrics(features, labels)
        assert far["squared_distance"] > 100 * near["squared_distance"]
        np.testing.assert_allclose(far["vci"], near["vci"], rtol=1e-4)

    def test_the_map_is_traced_as_well(self):
        """VCI is flat along linear maps: its derivative in the matrix is zero."""
        features, labels = draw()
        gradient = jax.grad(lambda matrix: measure(features @ matrix, labels)["vci"])(
            jnp.asarray(MAPS[0])
        )
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
