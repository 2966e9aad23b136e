"""Data whose pixels say where a sample stood."""

import torch

from kdutils.data import Dataset


def numbered(labels, classes=None):
    """A data set whose pixel (0, 0, 0) is the position of the sample."""
    labels = torch.as_tensor(labels)
    images = torch.arange(len(labels)).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    classes = classes or int(labels.max()) + 1
    rows = torch.arange(len(labels))
    return Dataset(images, labels, tuple(str(i) for i in range(classes)), "numbered", {"row": rows})


def positions(dataset):
    return dataset.images[:, 0, 0, 0].int().tolist()
