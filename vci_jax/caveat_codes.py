"""CODES: the meaning of each caveat of a report, and what to do about it.

A caveat's message speaks of the data at hand, and its wording may change. A code is stable:
programs may test for it, and the documentation explains it from here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Code(NamedTuple):
    """One kind of caveat.

    Attributes:
      code: the name in ``Caveat.code``.
      meaning: what was found in the data, and what it does to the numbers.
      remedy: what to do about it.
    """

    code: str
    meaning: str
    remedy: str


_DOUBLE = (
    'Measure in float64: `measure_arrays` always does, `measure` and `init` with `dtype="float64"` '
    "under `jax.enable_x64(True)`."
)

_ALL = (
    Code("too_few_samples",
         "There are no more samples than features or classes: every sample looks separable, vci is "
         "biased to complete collapse, and no adjusted value exists.",
         "Use more samples, at least three for each feature; or reduce the features first."),
    Code("small_sample",
         "Fewer than five samples for each feature and class: vci, probe_mse and h_score look more "
         "collapsed than the population is.",
         "Compare the adjusted values: vci_adjusted, probe_mse_adjusted, h_score_adjusted."),
    Code("unchecked_size",
         "Fewer than three samples for each feature and class: the adjusted values and the "
         "interval were not checked against known truth there.",
         "Use more samples, or read the adjusted values as an indication only."),
    Code("noisy_means",
         "More than 5 % of the variance between class means is sampling noise: fuzziness, "
         "squared_distance, cdnv and the NC2 metrics measure noise as well.",
         "Use more samples in each class, or squared_distance_adjusted and cdnv_adjusted if the "
         "caveat does not name these too."),
    Code("unequal_classes",
         "Classes differ both in size and in spread; the adjusted values and vci_interval assume "
         "that one of the two is equal, and may be off by some hundredths.",
         "Draw as many samples of each class, or do not build on differences of a few hundredths."),
    Code("few_directions",
         "The features span fewer directions than the number of classes less one, so VCI has a "
         "lower bound above zero, which the message gives.",
         "Do not compare this VCI with that of wider features: the bound differs."),
    Code("directions_cut",
         "Some directions of the features vary by no more than rounding, and were left out. The "
         "message bounds what VCI would be with them.",
         "In float32, measure in float64. In float64, remove features that are nearly linear "
         "functions of others."),
    Code("between_cut",
         "Some directions of the class means were left out, for the same reason: fuzziness and the "
         "parts of the within-class variance lack them.",
         "As for directions_cut."),
    Code("indistinct_means",
         "In some directions the class means differ by no more than rounding, and count as equal: "
         "probe_mse_adjusted lacks them.",
         "As for directions_cut."),
    Code("precision",
         "The metrics named have fewer correct digits than promised (1e-8 from float64 moments, "
         "1e-3 from float32); the message gives the relative error of each.",
         _DOUBLE),
    Code("vanishing_variance",
         "Features vary within classes by no more than the rounding of the class means, which "
         "counts as zero: near complete collapse the last digits are lost, or all of them.",
         _DOUBLE),
    Code("tight_classes",
         "Some classes vary so little, beside the distance of the classes, that the variances of "
         "per_class show rounding.",
         _DOUBLE),
    Code("central_classes",
         "Some classes lie so near the centre of all features that their distance in per_class "
         "shows rounding.",
         _DOUBLE),
    Code("one_class", "Only one class has samples: VCI compares classes and is undefined.",
         "Check the labels; pass samples of at least two classes."),
    Code("no_variance", "All features are equal: there is no variance to compare.",
         "Check the network and the layer: its output does not depend on the input."),
    Code("means_coincide",
         "All class means are equal to rounding: what divides by their distance is undefined.",
         "Check that features and labels are in the same order."),
    Code("two_means_coincide", "Two class means are equal to rounding: cdnv is infinite.",
         "Look for two names of one class, or for copies of the same images in both."),
    Code("label_out_of_range", "Rows with a label outside 0 .. K-1 were left out.",
         "Nothing, if -1 or -100 marks them on purpose; else check the labels or num_classes."),
    Code("non_finite", "Rows with NaN or infinity were left out.",
         "Find out why the network gives them; in half precision often an overflow."),
    Code("logits_non_finite",
         "Rows whose logits have NaN or infinity were left out of ncc_agreement.",
         "As for non_finite."),
    Code("overflow",
         "Squares of the features leave the range of the moments, or states with other "
         "class_counts were merged.",
         "Divide the features by a constant, or use float64; merge only states of one init."),
    Code("underflow", "Features differ by so little that their squares are lost.",
         "Multiply the features by a constant, or use float64."),
    Code("class_counts",
         'weighting="class" was asked for imbalanced data whose class counts were not known when '
         "the pass began.",
         "Pass class_counts to init or measure."),
    Code("no_interval",
         "Without one of the blocks VCI is 0 or cannot be adjusted, so there is no vci_interval.",
         "Use more samples, or fewer blocks."),
    Code("undefined", "The metrics named are NaN; the other caveats of the report say why.",
         "See those."),
)  # fmt: skip

CODES: Mapping[str, Code] = MappingProxyType({code.code: code for code in _ALL})
