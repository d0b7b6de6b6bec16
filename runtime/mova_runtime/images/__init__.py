"""Image to model inputs, in numpy and Pillow: decode, resize and normalise as in training."""

from mova_runtime.images.decode import ImageSource, decode
from mova_runtime.images.frame import Frame
from mova_runtime.images.preprocessor import Inputs, Preprocessor

__all__ = ["Frame", "ImageSource", "Inputs", "Preprocessor", "decode"]
