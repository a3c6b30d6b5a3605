"""Error measures of ImageNet-C (arXiv 1903.12261, section 4), which divide by errors of AlexNet.

The errors of AlexNet are published in github.com/hendrycks/robustness/issues/10. In all six digits,
their means are those in the program of AugMix by the same author (``ALEXNET_ERR`` in imagenet.py,
github.com/google-research/augmix, 9b9824c). The error on clean images is that of torchvision's
AlexNet, which the benchmark used; the paper says 43.5.
"""

from collections.abc import Mapping
from typing import Any

from .corruptions import CORRUPTIONS, SEVERITIES

# Share of wrong predictions at severities 1 to 5, on 50,000 images each.
ALEXNET_ERRORS = {
    'gaussian_noise': (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    'shot_noise': (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    'impulse_noise': (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    'defocus_blur': (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    'glass_blur': (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    'motion_blur': (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    'zoom_blur': (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    'snow': (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    'frost': (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    'fog': (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    'brightness': (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    'contrast': (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    'elastic_transform': (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    'pixelate': (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    'jpeg_compression': (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
ALEXNET_CLEAN_ERROR = 0.43478


def corruption_errors(
    errors: Mapping[str, Mapping[int, float]], clean: float | None = None, normalise: bool = True
) -> dict[str, Any]:
    """Compute the error measures of one classifier on corrupted images.

    ``errors`` by corruption and severity, and the error on ``clean`` images, are 0 to 1. The errors of
    AlexNet ``normalise`` them if the classes are those of ImageNet.

    Returns in percent, by corruption: ``mean_error`` over its severities and, with all five, ``ce``
    (the sum over the severities, divided by that of AlexNet) and, with ``clean``, ``relative_ce`` (the
    same after the error on clean images is subtracted from each error). With all 15 corruptions also
    their means ``unnormalised_mce``, ``mce`` and ``relative_mce``.
    """
    result: dict[str, Any] = {'mean_error': {}, 'ce': {}, 'relative_ce': {}}
    for name, found in errors.items():
        result['mean_error'][name] = 100 * sum(found.values()) / len(found)
        if set(found) != set(SEVERITIES) or not normalise:
            continue
        own, alexnet = sum(found.values()), sum(ALEXNET_ERRORS[name])
        result['ce'][name] = 100 * own / alexnet
        if clean is not None:
            own, alexnet = own - 5 * clean, alexnet - 5 * ALEXNET_CLEAN_ERROR
            result['relative_ce'][name] = 100 * own / alexnet
    if all(set(errors.get(name, ())) == set(SEVERITIES) for name in CORRUPTIONS):
        keys = ('mean_error', 'unnormalised_mce'), ('ce', 'mce'), ('relative_ce', 'relative_mce')
        for values, key in keys:
            if result[values]:
                result[key] = sum(result[values].values()) / len(CORRUPTIONS)
    return result
