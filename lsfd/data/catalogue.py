"""The public image sets that can be downloaded: where they lie and how to know them again.

Only high-resolution images are listed: ``lsfd.data.prepare`` makes the low-resolution ones,
bit-exact with MATLAB. Every checksum was published by somebody else, named in ``published``;
none was computed by this project.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A file on a public server.

    Attributes:
        url: where it lies.
        checksum: ``"sha256:<hex>"``, as published.
        size: bytes, as published.
        published: who published size and checksum.
    """

    url: str
    checksum: str
    size: int
    published: str


@dataclass(frozen=True)
class PublicSet:
    """A set of images inside an archive.

    Attributes:
        title: what it is and the paper it comes from.
        archive: the archive that holds it.
        folder: the folder of its high-resolution images inside the archive.
    """

    title: str
    archive: Archive
    folder: str


_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
# torchSR's torchsr/datasets/div2k.py publishes MD5 sums of the same two files.
_TFDS = "TensorFlow Datasets, tensorflow_datasets/datasets/div2k/checksums.tsv"

_DIV2K_TRAIN = Archive(
    url=f"{_DIV2K}/DIV2K_train_HR.zip",
    checksum="sha256:9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
    size=3_530_603_713,
    published=_TFDS,
)
_DIV2K_VALID = Archive(
    url=f"{_DIV2K}/DIV2K_valid_HR.zip",
    checksum="sha256:20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
    size=448_993_893,
    published=_TFDS,
)
# The collection of EDSR's authors. torchSR's torchsr/datasets/benchmarks.py publishes the MD5
# sum of the same file (4ace41d33c2384b97e6b320cd0afd6ba).
_EDSR_BENCHMARK = Archive(
    url="https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
    checksum="sha256:80c21c333bbf6ceb5308b7243761f8284478274413a97b96f1d63e9045fd93e8",
    size=250_112_000,
    published="YeapJieShen/single-image-super-resolution on GitHub, "
    "tests/reference/fetch_urban100.py",
)

CATALOGUE: dict[str, PublicSet] = {
    "DIV2K_train": PublicSet(
        "DIV2K, 800 training images (Agustsson and Timofte, CVPRW 2017)",
        _DIV2K_TRAIN,
        "DIV2K_train_HR",
    ),
    "DIV2K_valid": PublicSet(
        "DIV2K, 100 validation images (Agustsson and Timofte, CVPRW 2017)",
        _DIV2K_VALID,
        "DIV2K_valid_HR",
    ),
    "Set5": PublicSet("Set5 (Bevilacqua et al., BMVC 2012)", _EDSR_BENCHMARK, "benchmark/Set5/HR"),
    "Set14": PublicSet(
        "Set14 (Zeyde et al., Curves and Surfaces 2010)", _EDSR_BENCHMARK, "benchmark/Set14/HR"
    ),
    "B100": PublicSet(
        "B100, the test images of BSDS300 (Martin et al., ICCV 2001)",
        _EDSR_BENCHMARK,
        "benchmark/B100/HR",
    ),
    "Urban100": PublicSet(
        "Urban100 (Huang et al., CVPR 2015)", _EDSR_BENCHMARK, "benchmark/Urban100/HR"
    ),
}
"""Public sets by the name under which they are downloaded."""
