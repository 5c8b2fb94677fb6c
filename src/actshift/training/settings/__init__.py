"""Every setting of a training run; light to import, since the command line is read off it."""

from actshift.training.settings.config_file import read_config_file
from actshift.training.settings.train_settings import TrainSettings

__all__ = ["TrainSettings", "read_config_file"]
