"""From a word of the command line to an encoder."""

from pathlib import Path

from probes.encoders import run
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import Encoder
from train.config import ConfigError

# Kind -> (example, what it is). The help, the error and the documentation list these.
KINDS = {
    "run": ("runs/digits", "a work directory of python -m train"),
}


def load(word: str, options: TransferConfig) -> Encoder:
    """Returns the encoder that a word of the command line stands for.

    Args:
      word: of one of ``KINDS``.
      options: with the size of the input, the data directory and ``out``.

    Raises:
      ConfigError: no kind has such words, or the model cannot be loaded; says what to do.
    """
    if Path(word).is_dir():
        return run.load(Path(word), options)
    raise ConfigError(f"{word!r} is no model. {list_kinds()}")


def list_kinds() -> str:
    """Returns the kinds of words, one a line with an example each."""
    lines = (f"  {example:44} {summary}" for example, summary in KINDS.values())
    return "Models are:\n" + "\n".join(lines)
