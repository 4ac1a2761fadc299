"""Sizes of files and folders, as they lie and as they are sent."""

import gzip

from tf_spline_prune._files import sizes_of


def test_sizes_of_files_and_folders(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"a" * 5000)
    (tmp_path / "inner" / "b").write_bytes(bytes(range(256)))
    raw, packed = sizes_of(tmp_path / "a")
    assert raw == 5000 and packed < 100
    packed_b = len(gzip.compress(bytes(range(256)), 9))
    assert sizes_of(tmp_path) == (5256, packed + packed_b)
