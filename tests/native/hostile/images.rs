//! Photos of every kind, and what only claims to be one. The files lie in `tests/native/fixtures`, made by `make.py`.

use std::fs;
use std::path::Path;

use groma::Code;
use groma::groma::preprocess::{Rgb, decode, resize_bicubic};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType as Colour, ImageEncoder};

use super::memory::{cheap, measured};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/fixtures").join(name)).unwrap()
}

fn at(rgb: &Rgb, x: usize, y: usize) -> [u8; 3] {
    let i = (y * rgb.width + x) * 3;
    rgb.data[i..i + 3].try_into().unwrap()
}

/// The picture of the fixtures: red and blue, darker below.
#[track_caller]
fn is_picture(rgb: &Rgb, tolerance: u8, what: &str) {
    assert_eq!((rgb.width, rgb.height), (16, 8), "{what}");
    for (x, y, want) in [(0, 0, [240, 0, 0]), (15, 0, [0, 0, 240]), (0, 7, [120, 0, 0]), (15, 7, [0, 0, 120])] {
        let got = at(rgb, x, y);
        let close = got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= tolerance);
        assert!(close, "{what} at {x},{y}: {got:?}, not {want:?}");
    }
}

#[test]
fn every_kind_of_file_is_the_same_picture() {
    for (name, tolerance) in [
        ("cmyk.jpg", 3),
        ("progressive.jpg", 3),
        ("palette.png", 0),
        ("palette_transparent.png", 0),
        ("animated.png", 0),
        ("animated.webp", 0),
        ("lossy.webp", 12),
        ("alpha.webp", 12),
        ("alpha_lossless.webp", 0),
    ] {
        is_picture(&cheap(name, 1, || decode(&fixture(name))).expect(name), tolerance, name);
    }
}

#[test]
fn all_eight_orientations() {
    for end in ["jpg", "png", "webp"] {
        for orientation in 1..=8 {
            let name = format!("exif_{orientation}.{end}");
            is_picture(&decode(&fixture(&name)).expect(&name), 3, &name);
        }
    }
}

#[test]
fn few_bits_and_many() {
    let grey = decode(&fixture("grey.jpg")).unwrap();
    for (x, y, want) in [(0, 0, 72u8), (15, 0, 27), (0, 7, 36), (15, 7, 14)] {
        let [r, g, b] = at(&grey, x, y);
        assert!(r == g && g == b && r.abs_diff(want) <= 2, "{r} {g} {b}");
    }
    let bits = decode(&fixture("one_bit.png")).unwrap();
    for (i, p) in bits.data.chunks(3).enumerate() {
        let white = (i % 16 + i / 16).is_multiple_of(2);
        assert_eq!(p, if white { [255; 3] } else { [0; 3] });
    }
    let png = |data: &[u8], colour| {
        let mut out = Vec::new();
        PngEncoder::new(&mut out).write_image(data, 2, 1, colour).unwrap();
        decode(&out).unwrap().data
    };
    let wide = |v: &[u16]| v.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
    assert_eq!(png(&[7, 0, 200, 255], Colour::La8), [7, 7, 7, 200, 200, 200]);
    assert_eq!(png(&wide(&[0x12ff, 0xfe00]), Colour::L16), [0x12, 0x12, 0x12, 0xfe, 0xfe, 0xfe]);
    assert_eq!(png(&wide(&[0x12ff, 0, 0xfe00, 0xffff]), Colour::La16), [0x12, 0x12, 0x12, 0xfe, 0xfe, 0xfe]);
    assert_eq!(png(&wide(&[0x0100, 0x0200, 0x0300, 0xffff, 0, 0x80ff]), Colour::Rgb16), [1, 2, 3, 255, 0, 128]);
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

/// A PNG that claims a size; its pixels are those of another.
fn claim(width: u32, height: u32) -> Vec<u8> {
    let mut png = fixture("palette.png");
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

#[test]
fn sizes_are_looked_at_before_memory_is_taken() {
    for (width, height, code) in [
        (30_000, 30_000, Code::ImageTooLarge),
        (1 << 31, 1, Code::ImageTooLarge),
        ((1 << 31) - 1, (1 << 31) - 1, Code::ImageTooLarge),
        (99_000_000, 1, Code::ImageTooLarge),
        (1, 99_000_000, Code::ImageTooLarge),
        (0, 0, Code::ImageUnreadable),
        (0, 5, Code::ImageUnreadable),
        (5, 0, Code::ImageUnreadable),
    ] {
        let what = format!("{width} x {height}");
        let error = cheap(&what, 1, || decode(&claim(width, height))).expect_err(&what);
        assert_eq!(error.code, code, "{what}: {error}");
    }
    // A size that could be, with pixels that are not there.
    let (result, bytes, time) = measured(|| decode(&claim(9000, 9000)));
    assert_eq!(result.unwrap_err().code, Code::ImageUnreadable);
    assert!(bytes < 700 << 20 && time.as_secs() < 5, "{} MiB, {time:?}", bytes >> 20);
    // A WebP file whose EXIF block claims four gigabytes.
    let mut webp = fixture("exif_6.webp");
    let exif = webp.windows(4).position(|w| w == b"EXIF").unwrap() + 4;
    webp[exif..exif + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    let error = cheap("a long EXIF block", 1, || decode(&webp)).unwrap_err();
    assert_eq!(error.code, Code::ImageUnreadable, "{error}");
    // One whose container ends within the head of that block, so that only the decoder sees its length.
    webp[4..8].copy_from_slice(&(exif as u32 - 10).to_le_bytes());
    cheap("an EXIF block at the container's end", 1, || decode(&webp)).unwrap_err();
    // A frame of an animation that has such a block in itself.
    let mut frames = fixture("animated.webp");
    let inner = frames.windows(4).position(|w| w == b"ANMF").unwrap() + 24;
    frames[inner..inner + 8].copy_from_slice(b"EXIF\xf0\xff\xff\xff");
    let error = cheap("an EXIF block in a frame", 1, || decode(&frames)).unwrap_err();
    assert_eq!(error.code, Code::ImageUnreadable, "{error}");
    // What stands behind its container is no part of it.
    let mut longer = fixture("lossy.webp");
    let pixels = decode(&longer).expect("decodes");
    longer.extend(b"XMP \xff\xff\xff\x7f and so on");
    assert!(decode(&longer).is_ok_and(|p| p == pixels), "bytes behind the container");
    // JPEG and WebP say their size in 16 and 14 bits.
    let mut jpeg = fixture("progressive.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc2]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    let error = cheap("a JPEG of 30000 x 30000", 8, || decode(&jpeg)).unwrap_err();
    assert_eq!(error.code, Code::ImageTooLarge, "{error}");
    for size in [[0, 0, 0, 0], [0, 0, 0, 9]] {
        jpeg[frame + 5..frame + 9].copy_from_slice(&size);
        assert_eq!(decode(&jpeg).unwrap_err().code, Code::ImageUnreadable);
    }
}

#[test]
fn the_largest_photo_is_read_in_seconds() {
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&vec![90; 10_000 * 10_000], 10_000, 10_000, Colour::L8).unwrap();
    assert!(png.len() < 2 << 20, "it is a bomb of its kind: {} KiB", png.len() >> 10);
    let (rgb, bytes, time) = measured(|| decode(&png).unwrap());
    assert!(bytes < 900 << 20 && time.as_secs() < 30, "{} MiB, {time:?}", bytes >> 20);
    let (small, _, time) = measured(|| resize_bicubic(&rgb, 448));
    assert!(small.data.iter().all(|v| *v == 90) && time.as_secs() < 30, "{time:?}");
    // The longest line that is taken.
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&vec![90; 65_535], 65_535, 1, Colour::L8).unwrap();
    assert_eq!(resize_bicubic(&decode(&png).unwrap(), 448).data.len(), 448 * 448 * 3);
}

#[test]
fn what_is_no_photo_is_said_to_be_none() {
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><script>alert(1)</script></svg>";
    for bytes in
        [&b""[..], svg, b"<?xml version=\"1.0\"?><svg/>", b"BM\x3a\0\0\0", b"II*\0\x08\0\0\0", b"%PDF-1.7", &[0; 100]]
    {
        let error = cheap("no photo", 1, || decode(bytes)).unwrap_err();
        assert_eq!(error.code, Code::ImageUnreadable, "{error}");
        assert!(error.to_string().contains("PNG, JPEG or WebP"), "{error}");
    }
    for name in [
        "cmyk.jpg",
        "progressive.jpg",
        "palette.png",
        "animated.png",
        "animated.webp",
        "lossy.webp",
        "alpha.webp",
        "exif_5.jpg",
    ] {
        let whole = fixture(name);
        for n in (1..whole.len()).step_by(3) {
            // A cut JPEG may still be most of a photo; anything else is an error with a code.
            if let Err(error) = cheap(name, 8, || decode(&whole[..n])) {
                assert_eq!(error.code, Code::ImageUnreadable, "{name} cut at {n}: {error}");
            }
        }
    }
}
