"""data: datasets and the loader that makes batches of them, in one process.

A dataset is anything with `len()` and `[i]`. Deliberately not here yet: transforms, files of images, worker processes.
"""

from gluonish.data.dataset import ArrayDataset
from gluonish.data.loader import DataLoader
from gluonish.data.stacking import stack_samples
from gluonish.data.uci_digits import digits, digits_split

__all__ = ["ArrayDataset", "DataLoader", "digits", "digits_split", "stack_samples"]
