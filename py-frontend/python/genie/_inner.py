"""Code that is nobody's program: PyTorch's, and this package's own."""

from __future__ import annotations

import os

import torch

#: How the files of either begin. torchvision's, beside torch's, do not.
FOLDERS = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)
