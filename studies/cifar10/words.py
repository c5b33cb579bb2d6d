"""Names of settings and scores on the page and in the pictures."""

from studies.cifar10 import networks

NAMES = {
    "vci": "VCI",
    "vci_adjusted": "adjusted VCI",
    "cosine_similarity": "cosine similarity",
    "squared_distance": "squared distance",
    "fuzziness": "fuzziness",
    "class_separation": "class separation",
    "cdnv": "CDNV",
    "effective_rank": "effective rank",
    "h_score": "H-score",
    "h_score_adjusted": "adjusted H-score",
    "logme": "LogME",
    "nearest_mean": "nearest class mean",
    "neighbours": "20 nearest neighbours",
    "probe": "the probe itself",
    "accuracy": "pretraining accuracy",
}
OBJECTIVES = {
    "smoothing": "label smoothing 0.1",
    "mse": "squared error",
    "sigmoid": "sigmoid cross-entropy",
    "logit_norm": "normalised logits",
    "dropout": "dropout 0.5",
    "head_decay": "weight decay of the head",
    "vci_plus": "cross-entropy + 0.5 VCI",
    "vci_minus": "cross-entropy - 0.5 VCI",
}


def title(setting: str) -> str:
    """Returns the name of a setting in tables and pictures."""
    knob, _, value = setting.rpartition("_")
    if setting == networks.PLAIN:
        return "cross-entropy (temperature 1)"
    return {"tau": f"temperature {value}", "lambda": f"regulariser {value}"}.get(
        knob, OBJECTIVES.get(setting, setting)
    )


def pretraining_title(score: str) -> str:
    """Returns the name of a score on the pretraining images."""
    return NAMES[score] + ("" if score == "accuracy" else " of the pretraining images")
