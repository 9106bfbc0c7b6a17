"""firstgalaxydata (Griese et al. 2023): FIRST images of radio galaxies of four classes, from PyPI."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from survey_ml.data.galaxies import CLASSES, find_archive, open_archive, read_pixels, read_text
from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import SPLITS, LabelledImages

TEST = "galaxy_data_crossvalid_test_h5.zip"
"""Test set of all folds; 288 of its 400 images are for training in the literature's split."""

ARCHIVES = {"literature": ("galaxy_data_h5.zip",)} | {
    f"fold{k}": (f"galaxy_data_crossvalid_{k}_h5.zip", TEST) for k in range(5)
}
"""Subset to its archives."""


def read_firstgalaxy(subset: str = "literature", split: str | None = None) -> LabelledImages:
    """Read images of the installed package.

    Parameters
    ----------
    subset : str
        ``literature``, or ``fold0`` to ``fold4``: another split of the same images.
    split : str, optional
        ``train``, ``valid`` or ``test``; all when not given.

    Returns
    -------
    LabelledImages
        300 x 300 pixels of uint8, 1.8 arcsec each: zero up to 3 sigma of the noise, scaled from there to
        the maximum. (A line through their pixels against those of 169 FIRST fields meets zero at 2.7
        sigma in the median, and the maximum at the peak.)
        The classes are FRI, FRII, compact and bent; the few images of others are left out.

    Raises
    ------
    ConfigError
        When the package or h5py is not installed, or the subset is unknown.
    InputError
        When its files are not what was published.
    """
    if subset not in ARCHIVES:
        raise ConfigError(f"firstgalaxydata has no subset {subset!r}", f"Choose from {', '.join(ARCHIVES)}.")
    archives = [
        name
        for name in ARCHIVES[subset]
        if subset == "literature" or split is None or (split == "test") == (name == TEST)
    ]
    parts = [read_archive(find_archive(name), split) for name in archives]
    if len(parts) == 1:
        return parts[0]
    return LabelledImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        parts[0].classes,
        np.concatenate([part.names for part in parts]),
        np.concatenate([part.ra for part in parts]),
        np.concatenate([part.dec for part in parts]),
        np.concatenate([part.split for part in parts]),
        subtracted=True,
    )


def read_archive(path: Path, split: str | None = None) -> LabelledImages:
    """Read one archive of the package: a zip file that holds one HDF5 file.

    Parameters
    ----------
    path : Path
    split : str, optional
        Leave out all others.

    Returns
    -------
    LabelledImages
        In the order of the keys; names give position, label and the catalogue that the label is from.
        Positions are rounded to 0.001 deg.

    Raises
    ------
    InputError
        When it is not what was published.
    """
    images, rows = [], []
    with open_archive(path) as file:
        for key in file:
            group = file[key]
            label, part = int(group["Label_literature"][()]), read_text(group["Split_literature"])
            if label not in CLASSES or split not in (None, part):
                continue
            if part not in SPLITS:
                raise InputError(f"{path}: {key} is of the split {part!r}", "Reinstall firstgalaxydata.")
            dataset = group["Img"]
            attributes = dataset.attrs
            images.append(read_pixels(dataset, key))
            name = PurePosixPath(str(attributes["Filepath_literature"])).stem
            rows.append((label, name, float(attributes["RA"]), float(attributes["DEC"]), part))
    if not rows:
        raise InputError(f"{path} has no images{f' of the split {split}' if split else ''}", "Give another.")
    labels, names, ra, dec, parts = zip(*rows, strict=True)
    return LabelledImages(
        np.stack(images),
        np.array(labels, np.int64),
        tuple(CLASSES.values()),
        np.array(names, np.str_),
        np.array(ra),
        np.array(dec),
        np.array(parts, np.str_),
        subtracted=True,
    )
