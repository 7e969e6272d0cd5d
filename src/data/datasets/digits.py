"""Makes digits.bin.gz: the 1,797 images (64 bytes each, values 0 to 16, row by row), then the 1,797 labels (one byte each).

The data is the test half of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998, UCI Machine Learning Repository,
doi 10.24432/C50P49, CC BY 4.0), in the order in which scikit-learn distributes it.

    pip install scikit-learn && python src/data/datasets/digits.py
"""

import gzip
import pathlib

from sklearn.datasets import load_digits

digits = load_digits()
assert digits.images.shape == (1797, 8, 8) and digits.images.min() == 0 and digits.images.max() == 16
assert (digits.images == digits.images.astype("u1")).all() and set(digits.target) == set(range(10))
content = digits.images.astype("u1").tobytes() + digits.target.astype("u1").tobytes()
pathlib.Path(__file__).with_name("digits.bin.gz").write_bytes(gzip.compress(content, 9, mtime=0))
