"""Why Pillow decodes: one RandomResizedCrop to 224x224 of real photographs, by several libraries.

    pip install --no-deps opencv-python-headless simplejpeg     # optional contestants
    taskset -c 0 python -m benchmarks.decode ../shared/data/imagenet_sample

Contestants run in turn on each crop, in one process; reported is the median of the rounds for each
crop, averaged over all crops.
The difference is the mean over all pixels, in grey levels, from the whole image decoded and
resized by Pillow, which is what torchvision's PIL pipeline makes of a photograph.
"""

import io
import pathlib
import sys
import time

import numpy as np
import PIL
from PIL import Image

from train.data import augment, decode

try:
    import cv2
except ImportError:
    cv2 = None
try:
    import simplejpeg
except ImportError:
    simplejpeg = None

ROUNDS, BOXES, SIDE = 9, 4, 224
SIZE = (SIDE, SIDE)


def whole(data, box, kind="bilinear"):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(SIZE, decode.FILTERS[kind], box=box))


def ours(data, box, kind="bilinear"):
    return np.asarray(decode.resized(decode.read(data), box, SIZE, "RGB", kind))


def decoding_alone(data, box):
    del box
    Image.open(io.BytesIO(data)).convert("RGB")


def decoding_and_resizing(data, box):
    del box
    return np.asarray(
        Image.open(io.BytesIO(data)).convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)
    )


def power_of_two(box):
    """The largest of 1, 2, 4, 8 by which the box can be reduced and still hold enough pixels."""
    factor = min(box[2] - box[0], box[3] - box[1]) // SIDE
    return max(power for power in (1, 2, 4, 8) if power <= max(factor, 1))


def by_simplejpeg(data, box):
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    factor = power_of_two(box)
    image = simplejpeg.decode_jpeg(
        data, min_height=height // factor, min_width=width // factor, min_factor=1
    )
    shrink = round(width / image.shape[1])
    box = tuple(side / shrink for side in box)
    return np.asarray(Image.fromarray(image).resize(SIZE, Image.Resampling.BILINEAR, box=box))


def by_opencv(data, box):
    factor = power_of_two(box)
    flag = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[factor]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    left, top, right, bottom = (round(side / factor) for side in box)
    part = image[top:bottom, left:right]
    smaller = min(part.shape[:2]) > SIDE
    filter_ = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(part, SIZE, interpolation=filter_), cv2.COLOR_BGR2RGB)


def main(root):
    rng = np.random.default_rng(0)
    jobs = []
    for path in sorted(pathlib.Path(root).glob("*/*")):
        photo = decode.read(path.read_bytes())
        for _ in range(BOXES):
            box = augment._random_box(photo.width, photo.height, (0.08, 1.0), rng)
            jobs.append((path.read_bytes(), box))
    contestants = {
        "Pillow, whole image, resize(box)": whole,
        "train.data.decode (Pillow, draft, resize(box))": ours,
        "Pillow, decoding alone": decoding_alone,
        "Pillow, decoding, whole image resized": decoding_and_resizing,
    }
    if simplejpeg:
        contestants["simplejpeg, scaled decoding, Pillow resize(box)"] = by_simplejpeg
    if cv2:
        cv2.setNumThreads(1)
        contestants["OpenCV, reduced decoding, crop, resize"] = by_opencv
    seconds = {name: np.empty((ROUNDS, len(jobs))) for name in contestants}
    for turn in range(ROUNDS):
        for number, job in enumerate(jobs):
            for name, function in contestants.items():
                start = time.perf_counter()
                function(*job)
                seconds[name][turn, number] = time.perf_counter() - start
    print(f"{len(jobs)} crops, Pillow {PIL.__version__}, ms per crop, median of {ROUNDS} rounds")
    expected = [whole(*job).astype(float) for job in jobs]
    for name, function in contestants.items():
        line = f"  {np.median(seconds[name], axis=0).mean() * 1e3:6.2f} ms  {name}"
        if function not in (whole, decoding_alone, decoding_and_resizing):
            pairs = zip(jobs, expected, strict=True)
            far = np.mean([np.abs(function(*job) - pixels).mean() for job, pixels in pairs])
            line += f"  (differs by {far:.2f} grey levels)"
        print(line)
    pairs = [(whole(*job, "bicubic").astype(float), ours(*job, "bicubic")) for job in jobs]
    far = np.mean([np.abs(pixels - got).mean() for pixels, got in pairs])
    print(f"  bicubic, as for DeiT: train.data.decode differs by {far:.2f} grey levels from Pillow")


if __name__ == "__main__":
    main(sys.argv[1])
