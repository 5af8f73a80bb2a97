"""Operations on images and masks that saliency methods and figures share.

Shapes: B images, C channels, H rows, W columns; masks are mask_B1HW in [0, 1], 1 = salient unless
a method says otherwise. Torch and OpenCV are imported on first use, so that a method may import
this module and still be listed at once.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import WorkError
from .lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

torch = lazy("torch")
F = lazy("torch.nn.functional")
cv2 = lazy("cv2")

FIGURE_GREY = 0.35  # official plot.py shows hidden pixels in this grey, on [0, 1] pixels
TELEA_RADIUS = 3


def gaussian_blur(images_BCHW: Tensor, sigma: float) -> Tensor:
    """Blur each channel with a Gaussian of `sigma` pixels, cut off at four sigma.

    Beyond the border the outermost pixel is repeated, as in PIL, whose `radius` is this sigma.
    A sigma of 0 leaves the images as they are.
    """
    if sigma == 0:
        return images_BCHW
    height, width = images_BCHW.shape[-2:]
    down_HH = _blur_matrix(height, sigma, images_BCHW.dtype, images_BCHW.device)
    across_WW = _blur_matrix(width, sigma, images_BCHW.dtype, images_BCHW.device)
    return down_HH @ images_BCHW @ across_WW.mT


@lru_cache(maxsize=16)
def _blur_matrix(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Blurring `size` pixels in a row, as a matrix.

    At 224 pixels and sigma 5 two products with it take a thirtieth of the time of two
    one-dimensional convolutions on a CPU.
    """
    reach = int(4 * sigma + 0.5)
    with torch.inference_mode(False):  # what is cached must serve later gradients as well
        offsets_R = torch.arange(-reach, reach + 1)
        weights_R = torch.softmax(-0.5 * (offsets_R / sigma).double() ** 2, dim=0)
        columns_SR = (torch.arange(size)[:, None] + offsets_R).clamp(0, size - 1)
        matrix_SS = torch.zeros(size, size, dtype=torch.float64)
        matrix_SS.scatter_add_(1, columns_SR, weights_R.expand(size, -1))
        return matrix_SS.to(device, dtype)


def total_variation(mask_B1HW: Tensor, beta: float) -> Tensor:
    """Total variation of each mask, shape B: the sum over its pixels of (dx² + dy²)^(beta/2).

    Forward differences, zero at the far edges (Fong & Vedaldi 2017, section 4.3). For beta below
    2 the gradient is not finite where the mask is constant.
    """
    down_B1HW = F.pad(mask_B1HW.diff(dim=-2), (0, 0, 0, 1))
    right_B1HW = F.pad(mask_B1HW.diff(dim=-1), (0, 1))
    return (down_B1HW**2 + right_B1HW**2).pow(beta / 2).sum(dim=(1, 2, 3))


def roughness(mask_B1HW: Tensor, border: float = 0.3) -> Tensor:
    """How rough masks are, a scalar: half the sum of squared differences, mean over the batch.

    Dabkowski & Gal's smoothness loss (power 2). Whatever touches the border adds its square,
    weighted by `border`, as if it were partly cut off there.
    """
    inner = mask_B1HW.diff(dim=-2).square().sum() + mask_B1HW.diff(dim=-1).square().sum()
    edges = (mask_B1HW[..., 0, :], mask_B1HW[..., -1, :], mask_B1HW[..., 0], mask_B1HW[..., -1])
    rim = sum(edge.square().sum() for edge in edges)
    return (inner + border * rim) / (2 * len(mask_B1HW))


def masked_in(images_BCHW: Tensor, mask_B1HW: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Only what the mask covers; elsewhere `fill`, a value or other images."""
    return images_BCHW * mask_B1HW + fill * (1 - mask_B1HW)


def masked_out(images_BCHW: Tensor, mask_B1HW: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Only what the mask does not cover.

    On normalised images a fill of 0 is the data set's mean colour, as in CASM's training; on
    [0, 1] pixels it is black, as in the official masked-image evaluation (eval.py).
    """
    return masked_in(images_BCHW, 1 - mask_B1HW, fill)


def inpaint(image_HW3: np.ndarray, hole_HW: np.ndarray) -> np.ndarray:
    """Fill the hole (bool) of a uint8 image from its rim: Telea 2004, radius 3, as eval.py."""
    return cv2.inpaint(image_HW3, hole_HW.astype("uint8"), TELEA_RADIUS, cv2.INPAINT_TELEA)


def heat(image_HW3: np.ndarray, share_HW: np.ndarray) -> np.ndarray:
    """A map in [0, 1] over a uint8 image, half and half, in colours of even lightness steps."""
    levels = (share_HW.clip(0, 1) * 255).astype("uint8")
    colours_HW3 = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image_HW3, 0.5, colours_HW3, 0.5, 0)


def image_seeds(images_BCHW: Tensor, seed: int) -> list[int]:
    """For each image a seed made from its pixels and `seed`: what is drawn for an image from it
    depends neither on its neighbours in the batch nor on its place there.

    Raises WorkError for images without pixels.
    """
    if images_BCHW.is_meta:
        raise WorkError(
            "This data set has boxes but no pixels, and the method draws random numbers by an "
            "image's pixels; run it on a data set with pictures."
        )
    key = seed.to_bytes(8, "little", signed=True)
    pixels = images_BCHW.detach().float().cpu().numpy()
    digests = (hashlib.blake2b(image.tobytes(), digest_size=7, key=key) for image in pixels)
    return [int.from_bytes(digest.digest(), "little") for digest in digests]
