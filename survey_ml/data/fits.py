"""FITS images read by window: a field's pixels are never all in memory."""

from __future__ import annotations

import gzip
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from survey_ml.data import plain
from survey_ml.data.header import (
    Assumptions,
    Plane,
    check_beam,
    check_polarisation,
    read_beam,
    read_frequency,
    read_plane,
    read_scale,
)
from survey_ml.data.layout import Layout, make_layout, read_sizes
from survey_ml.data.packing import is_gzipped, open_raw
from survey_ml.errors import InputError
from survey_ml.field import Field, Window

if TYPE_CHECKING:  # imported where it is needed: it takes longer than a small field
    from astropy.io import fits

GZIP_LIMIT = 256 << 20
"""Bytes of a gzipped image that are unpacked in memory; it cannot be read by window."""
BAND_LIMIT = 96 << 20
"""Bytes of decompressed rows that are kept for the next tile of the same rows."""
STRIP = 16 << 20
"""Bytes of rows that are decompressed at once when a whole band would be too large."""


class FitsReader:
    """A FITS image: plain, tile-compressed (``.fz``) or gzipped; a path or a URL.

    Parameters
    ----------
    path : str
        The file.
    hdu : str, int or None
        Name or number of the HDU; the first image when None.

    Attributes
    ----------
    notes : list of str
        What `describe` found worth telling, such as a default that the header overruled.
    """

    def __init__(self, path: str, hdu: str | int | None = None) -> None:
        self.path = path
        self.hdu = hdu
        self.notes: list[str] = []
        self._layout: Layout | None = None
        self._opened: fits.HDUList | None = None
        self._file: IO[bytes] | None = None
        self._pixels: NDArray[Any] | None = None
        self._band: tuple[int, int, NDArray[np.float32]] | None = None

    def __enter__(self) -> FitsReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and drop what was kept of it."""
        self._close_file(keep_stream=False)
        self._pixels = self._band = None

    def _close_file(self, *, keep_stream: bool = True) -> None:
        """Close a file that is mapped into memory, so that pages of it do not pile up there.

        A stream from elsewhere is kept, if asked: it is not mapped, and opening it costs a transfer.
        """
        if keep_stream and (self._remote or self._gzipped):
            return
        if self._opened is not None:
            self._opened.close()
        if self._file is not None:
            self._file.close()
        self._opened = self._file = None

    @property
    def _remote(self) -> bool:
        return "://" in self.path

    @cached_property
    def _gzipped(self) -> bool:
        return is_gzipped(self.path)

    def describe(self, defaults: Assumptions, name: str) -> tuple[Field, float]:
        """Check the header and tell what it says; no pixel is read.

        Parameters
        ----------
        defaults : Assumptions
            What to assume where the header lacks it.
        name : str
            Name of the field.

        Returns
        -------
        field : Field
            What is known of the image.
        scale : float
            Factor from the file's unit to Jy/beam.

        Raises
        ------
        InputError
            When the image cannot be used: it says why and what to do.
        """
        self.notes.clear()
        if (found := self._find_plain()) is not None:
            header, plane, self._layout = found
            return self._interpret(header, plane, None, defaults, name)
        with self._open() as opened:
            index = self._find_image(opened)
            image = opened[index]
            header = image.header
            sizes = read_sizes(header)
            # The same words for the same sky however a file is stored: they are part of keys.
            plane = plain.restate_plane(header, sizes) or read_plane(header, sizes)
            self._layout = self._read_layout(image, index, sizes, plane.axes)
            return self._interpret(header, plane, _read_beam_table(opened, header), defaults, name)

    def _interpret(
        self,
        header: Any,
        plane: Plane,
        beams: NDArray[np.float64] | None,
        defaults: Assumptions,
        name: str,
    ) -> tuple[Field, float]:
        """Check what a header says beside its WCS, and that the file is whole."""
        check_polarisation(header)
        scale = read_scale(header, defaults.unit, self.notes)
        beam = read_beam(header, beams, defaults, self.notes)
        check_beam(beam, plane)
        frequency = read_frequency(header, defaults.frequency_hz, self.notes)
        self._check_length(self._find_layout())
        return Field(name, plane.shape, plane.header, beam, frequency), scale

    def _find_plain(self) -> tuple[plain.PlainHeader, Plane, Layout] | None:
        """Read header and layout of a plain image without a FITS library; None for all others."""
        if self._remote or self._gzipped or self.hdu not in (None, 0):
            return None
        header = plain.read_header(self.path)
        sizes = None if header is None else plain.read_sizes(header)
        if header is None or sizes is None or (plane := plain.find_plane(header, sizes)) is None:
            return None
        numbers = [header.get("BSCALE", 1.0), header.get("BZERO", 0.0), header.get("BLANK", 0)]
        if not all(isinstance(number, int | float) for number in numbers):
            return None
        return header, plane, make_layout(header, 0, sizes, plane.axes, header.length, compressed=False)

    def read(self, window: Window) -> NDArray[np.float32]:
        """Return the pixels of a window in the file's unit; blank pixels are NaN.

        Parameters
        ----------
        window : Window
            Inside the image.

        Returns
        -------
        ndarray, shape (ny, nx)
            float32, native byte order.

        Raises
        ------
        InputError
            When the pixels cannot be read.
        """
        layout = self._find_layout()
        try:
            if layout.compressed or self._remote:
                return self._read_section(layout, window)
            return self._read_plain(layout, window)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the pixels of {self.path} cannot be read: {error}", "Copy or download the file again."
            ) from error

    # The file

    @contextmanager
    def _open(self) -> Iterator[fits.HDUList]:
        """Open the file for its headers; failures become errors that name it."""
        from astropy.io import fits

        try:
            _ = self._gzipped
            with warnings.catch_warnings():
                # Truncation is found by `_check_length`; other complaints are about harmless cards.
                warnings.simplefilter("ignore")
                with self._open_bytes() as file, fits.open(file, memmap=False) as opened:
                    yield opened
        except InputError:
            raise
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> InputError:
        """Tell a file that is no FITS from a broken one."""
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        try:
            with self._open_bytes() as file:
                start = file.read(9)
        except (OSError, EOFError):
            start = b""
        if start != b"SIMPLE  =":
            return InputError(f"{self.path} is not a FITS file", "Give a FITS image.")
        if "END card" in text or "corrupt" in text or isinstance(error, EOFError):
            return InputError(f"{self.path} is truncated", "Copy or download the file again.")
        return InputError(f"the header of {self.path} cannot be read: {text}", "Write the file again.")

    @contextmanager
    def _open_bytes(self) -> Iterator[IO[bytes]]:
        """Open the file as a stream of its unpacked bytes."""
        with open_raw(self.path) as raw:
            if self._gzipped:
                with gzip.open(raw, "rb") as unpacked:
                    yield cast("IO[bytes]", unpacked)
            else:
                yield raw

    def _find_image(self, opened: fits.HDUList) -> int:
        """Return the number of the HDU to read."""
        if self.hdu is not None:
            try:
                index = opened.index_of(self.hdu)
                image = opened[index]
            except (KeyError, IndexError) as error:
                names = ", ".join(f"{number} {item.name or '-'}" for number, item in enumerate(opened))
                raise InputError(
                    f"{self.path} has no HDU {self.hdu!r}", f"Its HDUs are: {names}. Set hdu to one."
                ) from error
            if not image.is_image or int(image.header.get("NAXIS", 0)) < 2:
                raise InputError(f"HDU {self.hdu!r} of {self.path} is no image", "Set hdu to an image.")
            return int(index)
        index = 0
        while True:
            try:
                image = opened[index]
            except IndexError:
                break
            if image.is_image and int(image.header.get("NAXIS", 0)) >= 2 and 0 not in image.shape:
                return index
            index += 1
        raise InputError(f"{self.path} holds no image", "Give an image; tables are not read.")

    @staticmethod
    def _read_layout(image: Any, index: int, sizes: tuple[int, ...], axes: tuple[int, int]) -> Layout:
        from astropy.io import fits

        offset = int(image.fileinfo()["datLoc"])
        packed = isinstance(image, fits.CompImageHDU)
        return make_layout(image.header, index, sizes, axes, offset, compressed=packed)

    def _find_layout(self) -> Layout:
        if self._layout is None and (found := self._find_plain()) is not None:
            self._layout = found[2]
        if self._layout is None:
            with self._open() as opened:
                index = self._find_image(opened)
                image = opened[index]
                header = image.header
                sizes = read_sizes(header)
                self._layout = self._read_layout(image, index, sizes, read_plane(header, sizes).axes)
        return self._layout

    def _check_length(self, layout: Layout) -> None:
        """Compare the file's length with what the header promises."""
        if layout.compressed:
            from astropy.io import fits

            with self._open_bytes() as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with fits.open(file, memmap=False, disable_image_compression=True) as opened:
                    needed = layout.offset + int(opened[layout.index].size)
        else:
            n_pixels = int(np.prod(layout.sizes, dtype=np.int64))
            needed = layout.offset + n_pixels * np.dtype(layout.dtype).itemsize
        if self._gzipped and needed > GZIP_LIMIT:
            raise InputError(
                f"{self.path} unpacks to {needed >> 20} MiB; gzipped images over {GZIP_LIMIT >> 20} MiB "
                "cannot be read by window",
                f"Unpack it: gunzip {Path(self.path).name}. Or compress it with fpack.",
            )
        present = self._measure_length(needed)
        if present < needed:
            raise InputError(
                f"{self.path} is truncated: {present} bytes of {needed}", "Copy or download the file again."
            )

    def _measure_length(self, needed: int) -> int:
        """Return the length of the (unpacked) file in bytes, or at least ``needed``."""
        if self._gzipped:
            if not self._remote:
                with Path(self.path).open("rb") as packed:
                    packed.seek(-4, os.SEEK_END)
                    # The trailer of a whole gzip file is the length of what it holds.
                    if (length := int.from_bytes(packed.read(4), "little")) in range(needed, needed + 2881):
                        return length
            length = 0
            try:
                with self._open_bytes() as file:
                    while length < needed and (block := file.read(1 << 20)):
                        length += len(block)
            except (EOFError, OSError):
                return length
            return length
        if self._remote:
            import fsspec

            files, path = fsspec.core.url_to_fs(self.path)
            return int(files.info(path)["size"])
        return os.stat(self.path).st_size  # noqa: PTH116

    # Pixels

    def _index(self, layout: Layout, window: Window) -> tuple[slice | int, ...]:
        """Index of a window into the data, whose axes run from the last FITS axis to the first."""
        rows, columns = window.slices
        chosen = {layout.axes[0]: columns, layout.axes[1]: rows}
        return tuple(chosen.get(axis, 0) for axis in reversed(range(len(layout.sizes))))

    def _read_plain(self, layout: Layout, window: Window) -> NDArray[np.float32]:
        width, height = (layout.sizes[axis] for axis in layout.axes)
        if self._gzipped:
            if self._pixels is None:
                with self._open_bytes() as file:
                    data = file.read()
                pixels = np.frombuffer(data, layout.dtype, height * width, layout.offset)
                self._pixels = pixels.reshape(height, width)
            return _scale(self._pixels[window.slices].copy(), layout)
        # Reads, not a memory map: mapped pages count as memory of the worker, and a map of a file
        # that shrinks or whose server fails kills the process instead of raising an error.
        stored = np.empty(window.shape, layout.dtype)
        item = stored.dtype.itemsize
        with Path(self.path).open("rb", buffering=0) as file:
            if window.shape[1] == width:
                _fill(file.fileno(), stored, layout.offset + window.y0 * width * item)
            else:
                start = layout.offset + (window.y0 * width + window.x0) * item
                for number, row in enumerate(stored):
                    _fill(file.fileno(), row, start + number * width * item)
        return _scale(stored, layout)

    def _read_section(self, layout: Layout, window: Window) -> NDArray[np.float32]:
        image = self._open_section(layout)
        if not layout.compressed:
            return _scale(image.section[self._index(layout, window)], layout)
        width = layout.sizes[layout.axes[0]]
        band_bytes = (window.y1 - window.y0) * width * 4
        # Most files compress row by row, so that any window costs the decompression of whole rows.
        by_rows = image.tile_shape[-1 - layout.axes[0]] >= width
        if by_rows and band_bytes <= BAND_LIMIT:
            if self._band is None or self._band[:2] != (window.y0, window.y1):
                whole = Window(window.y0, window.y1, 0, width)
                section = image.section[self._index(layout, whole)]
                self._band = (window.y0, window.y1, _scale(section, layout))
                self._close_file()
            return self._band[2][:, window.slices[1]].copy()
        values = np.empty(window.shape, dtype=np.float32)
        step = max(1, STRIP // (4 * width)) if by_rows else window.shape[0]
        for start in range(window.y0, window.y1, step):
            strip = Window(start, min(start + step, window.y1), window.x0, window.x1)
            section = image.section[self._index(layout, strip)]
            values[strip.y0 - window.y0 : strip.y1 - window.y0] = _scale(section, layout)
        self._close_file()
        return values

    def _open_section(self, layout: Layout) -> Any:
        """Open the file for its pixels."""
        from astropy.io import fits

        if self._opened is None:
            if self._gzipped:
                with self._open_bytes() as file:
                    self._file = io.BytesIO(file.read())
            elif self._remote:
                import fsspec

                self._file = fsspec.open(self.path, "rb").open()
            else:
                self._file = Path(self.path).open("rb")  # noqa: SIM115
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                mapped = not (self._gzipped or self._remote)
                # Scaling is `_scale`'s, for all kinds alike; astropy's needs a copy of the whole.
                self._opened = fits.open(self._file, memmap=mapped, do_not_scale_image_data=True)
        return self._opened[layout.index]


def _fill(handle: int, values: NDArray[Any], offset: int) -> None:
    """Read a contiguous array from a place in a file."""
    view = values.reshape(-1).view(np.uint8).data
    while view:
        count = os.preadv(handle, [view], offset)
        if not count:
            raise EOFError("the file is shorter than its header says")
        view, offset = view[count:], offset + count


def _scale(stored: NDArray[Any], layout: Layout) -> NDArray[np.float32]:
    """Return stored numbers as float32 values; blank integers are NaN. May return its argument."""
    if layout.scale == 1.0 and layout.zero == 0.0:
        if stored.dtype == ">f4" and stored.flags.writeable and stored.flags.c_contiguous:
            # In place: a second copy of a large window costs more than swapping its bytes.
            values = stored.byteswap(inplace=True).view(np.float32) if sys.byteorder == "little" else stored
        else:
            values = stored.astype(np.float32, copy=False)
    else:
        values = (stored.astype(np.float64) * layout.scale + layout.zero).astype(np.float32)
    if layout.blank is not None:
        values[stored == layout.blank] = np.nan
    return values


def _read_beam_table(opened: fits.HDUList, header: fits.Header) -> NDArray[np.float64] | None:
    """Return the beams of a BEAMS table in arcsec, arcsec and deg, if the image says it has one."""
    if "BMAJ" in header or not (header.get("CASAMBM") or "BEAMS" in opened):
        return None
    if "BEAMS" not in opened:
        return None
    table = opened["BEAMS"]
    columns = []
    for name in ("BMAJ", "BMIN", "BPA"):
        unit = str(table.columns[name].unit or ("deg" if name == "BPA" else "arcsec")).strip().lower()
        factor = {"arcsec": 1.0, "arcmin": 60.0, "deg": 3600.0, "rad": 206264.80624709636}.get(unit, 1.0)
        if name == "BPA":
            factor = {"deg": 1.0, "rad": 57.29577951308232}.get(unit, 1.0)
        columns.append(np.asarray(table.data[name], dtype=np.float64) * factor)
    return np.stack(columns, axis=1)
