"""What a file is, recognised by its first bytes, and what to do with one that is no picture."""

_LFS = "a pointer of Git LFS, not the file itself: run `git lfs pull`"
_MAGICS = (
    (b"version https://git-lfs", _LFS),
    (b"version https://hawser", _LFS),
    (b"<!doctype html", "a page of HTML, as a download that failed leaves it"),
    (b"<html", "a page of HTML, as a download that failed leaves it"),
    (b"<?xml", "XML, perhaps an SVG or an answer of a server; draw it as PNG"),
    (b"<svg", "an SVG; draw it as PNG"),
    (b"{", "JSON, as a server answers that refuses"),
    (b"8bps", "a Photoshop file; save it as PNG"),
    (b"%pdf", "a PDF; draw its pages as PNG"),
    (b"%!ps", "PostScript; draw it as PNG"),
    (b"\xff\x0a", "JPEG XL; convert it to PNG"),
    (b"\0\0\0\x0cjxl ", "JPEG XL; convert it to PNG"),
    (b"\0\0\0\x0cjp  ", "JPEG 2000; convert it to PNG or TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG 2000; convert it to PNG or TIFF"),
    (b"v/1\x01", "OpenEXR; convert it to a TIFF of floats"),
    (b"\0\0\x01\0", "an icon; convert it to PNG"),
    (b"simple  =", "FITS; convert it to a TIFF of floats, or save it by np.save"),
    (b"gif8", "a GIF whose head is damaged"),
    (b"arrow1", "an Arrow file; write it as Parquet"),
    (b"\x1f\x8b", "packed with gzip; unpack it first"),
    (b"pk\x03\x04", "a zip; unpack it first"),
    (b"dds ", "a DDS texture; convert it to PNG"),
    (b"qoif", "QOI; convert it to PNG"),
    (b"ustar", "a tar; give it as the source"),
)
_PNM = (b"p1", b"p2", b"p3", b"p4", b"p5", b"p6", b"pf")
_BRANDS = {
    b"heic": "HEIC, as iPhones write it; convert it to JPEG or PNG",
    b"heix": "HEIC, as iPhones write it; convert it to JPEG or PNG",
    b"hevc": "HEIC, as iPhones write it; convert it to JPEG or PNG",
    b"mif1": "HEIF; convert it to JPEG or PNG",
    b"avif": "AVIF; convert it to PNG",
    b"avis": "AVIF; convert it to PNG",
    b"crx ": "a camera raw; develop it to TIFF",
}
_DICOM_AT = 128
_BRAND_AT = 4
_LOOKED_AT = 1024


def kind_of(head: bytes) -> str | None:
    """Return what a file is that is no picture of a kind that is read; None where nobody knows."""
    if not head:
        return "empty"
    if head[_DICOM_AT : _DICOM_AT + 4] == b"DICM":
        return "DICOM; convert it to PNG or TIFF of 16 bits, or save it by np.save"
    if head[_BRAND_AT : _BRAND_AT + 4] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video; take its frames out as PNG")
    start = head[:_LOOKED_AT].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for magic, kind in _MAGICS:
        if start.startswith(magic) or head.lower().startswith(magic):
            return kind
    if start.startswith(_PNM) and start[2:3].isspace():
        return "a PNM; convert it to PNG"
    return "zeros alone, as a copy that broke off leaves them" if not any(head) else None
