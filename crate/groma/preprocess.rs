//! From a picture's file to the pixels that the encoder reads.
//!
//! Runs on the host and gives the same bytes everywhere: both fronts decode PNG, JPEG and WebP here, and the resampling
//! is Pillow's 8-bit bicubic to the last bit. Must never know a device.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::{Code, Error, Result};

/// The most pixels that are decoded; beyond this a phone's memory would end before the picture does.
pub const MAX_PIXELS: u64 = 100_000_000;

/// The longest side. JPEG and WebP end there by themselves; a line of pixels that is longer is no photo, and resampling
/// takes memory by the side.
pub const MAX_SIDE: u32 = 65_535;

/// What decoding may allocate: [`MAX_PIXELS`] of the widest pixels there are (16 bit, four channels), and as much again.
const MAX_ALLOC: u64 = MAX_PIXELS * 16;

/// The statistics that DINOv2 was trained with, red first.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// 8-bit pixels, rows from the top, red first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` numbers.
    pub data: Vec<u8>,
}

impl Rgb {
    /// Pixels that somebody else decoded.
    ///
    /// # Errors
    /// `image-unreadable` where there are not just as many numbers as the size says, or none.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        let want = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if want != Some(data.len()) || data.is_empty() {
            let e = Error::new(Code::ImageUnreadable, "the pixels do not fill the picture");
            return Err(e.expected(format!("{width} x {height} x 3"), data.len()));
        }
        Ok(Self { width, height, data })
    }

    /// Pixels with a fourth number each (a canvas has them so): the fourth is dropped, not composited.
    ///
    /// # Errors
    /// `image-unreadable`, as [`Rgb::new`].
    pub fn from_rgba(width: usize, height: usize, rgba: &[u8]) -> Result<Self> {
        let (pixels, rest) = rgba.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Error::new(Code::ImageUnreadable, "the pixels are no RGBA")
                .expected("four numbers a pixel", rgba.len()));
        }
        Self::new(width, height, pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).collect())
    }
}

/// Decodes a PNG, JPEG or WebP file as the photo's maker meant it to be seen: turned by its EXIF orientation.
///
/// Alpha is dropped, grey replicated, 16 bits cut to their upper 8, colour profiles are ignored (as upstream does).
///
/// # Errors
/// `image-unreadable` for anything else and for broken files, `image-too-large`.
pub fn decode(bytes: &[u8]) -> Result<Rgb> {
    decode_with(bytes, true)
}

/// As [`decode`]; with `turned` false as the photo is stored, for those who show it so (some browsers and WebP files).
///
/// # Errors
/// As [`decode`].
pub fn decode_with(bytes: &[u8], turned: bool) -> Result<Rgb> {
    let format = match image::guess_format(bytes) {
        Ok(f @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => f,
        Ok(other) => {
            return Err(unreadable("the format of the picture is not supported")
                .expected("PNG, JPEG or WebP", format!("{other:?}")));
        }
        Err(_) => {
            return Err(unreadable("this is no picture")
                .expected("PNG, JPEG or WebP", format!("{} bytes of something else", bytes.len())));
        }
    };
    let bytes = if format == ImageFormat::WebP { container(bytes)? } else { bytes };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let got = format!("{width} x {height}");
    let too_large = || Error::new(Code::ImageTooLarge, "the picture is too large");
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(too_large().expected(format!("at most {} megapixels", MAX_PIXELS / 1_000_000), got));
    }
    if width.max(height) > MAX_SIDE {
        return Err(too_large().expected(format!("sides of at most {MAX_SIDE} pixels"), got));
    }
    // A broken EXIF block does not make a picture unreadable.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if turned {
        picture.apply_orientation(orientation);
    }
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Rgb::new(width, height, to_rgb8(picture))
}

/// A WebP file without what stands behind its RIFF container: that is nobody's, and the decoder would look for chunks there.
fn container(webp: &[u8]) -> Result<&[u8]> {
    let whole = webp.get(4..8).and_then(|n| n.first_chunk::<4>()).map_or(0, |n| u32::from_le_bytes(*n) as usize);
    let webp = &webp[..webp.len().min(whole.saturating_add(8))];
    check_chunks(webp, 12, true)?; // RIFF, size, WEBP.
    Ok(webp)
}

/// Refuses chunks, from a place on, that claim more than there is: the decoder would take what an EXIF chunk claims, up
/// to 4 GiB, before it reads it. Frames of an animation have chunks in themselves, behind 16 bytes of their own, and no
/// frames.
fn check_chunks(webp: &[u8], mut at: usize, frames: bool) -> Result<()> {
    while let Some(head) = webp.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let rest = webp.len() - at - 8;
        if size > rest {
            return Err(unreadable("the picture is broken: it ends too early")
                .expected(format!("{size} bytes from {} on", at + 8), rest));
        }
        if frames && head.starts_with(b"ANMF") {
            check_chunks(&webp[..at + 8 + size], at + 8 + 16, false)?;
        }
        at += 8 + size + size % 2;
    }
    Ok(())
}

/// The upper byte of wide samples is what Pillow takes; the image crate would round.
fn to_rgb8(picture: DynamicImage) -> Vec<u8> {
    let high = |v: &u16| (v >> 8) as u8;
    match picture {
        DynamicImage::ImageRgb16(p) => p.as_raw().iter().map(high).collect(),
        DynamicImage::ImageRgba16(p) => {
            p.pixels().flat_map(|p| [high(&p.0[0]), high(&p.0[1]), high(&p.0[2])]).collect()
        }
        DynamicImage::ImageLuma16(p) => p.pixels().flat_map(|p| [high(&p.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [high(&p.0[0]); 3]).collect(),
        other => other.into_rgb8().into_raw(),
    }
}

fn unreadable(message: &str) -> Error {
    Error::new(Code::ImageUnreadable, message)
}

fn broken(e: ImageError) -> Error {
    match e {
        ImageError::Limits(_) => Error::new(Code::ImageTooLarge, "the picture needs too much memory to decode"),
        other => Error::new(Code::ImageUnreadable, format!("the picture is broken: {other}")),
    }
}

/// Fractional bits of Pillow's filter taps.
const PRECISION: u32 = 22;

/// The taps of one output pixel: the first input pixel and the integer weights from there on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Pillow's 8-bit bicubic filter (a = -0.5), widened by the scale when shrinking so that it does not alias.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    fn kernel(x: f64) -> f64 {
        let x = x.abs();
        if x < 1.0 {
            (1.5 * x - 2.5) * x * x + 1.0
        } else if x < 2.0 {
            ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        } else {
            0.0
        }
    }
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let row = |o: usize| {
        let centre = (o as f64 + 0.5) * scale;
        // `as` cuts towards zero and stops at zero, as the original's integers do.
        let first = (centre - 2.0 * stretch + 0.5) as usize;
        let end = ((centre + 2.0 * stretch + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end).map(|i| kernel((i as f64 - centre + 0.5) / stretch)).collect();
        let total: f64 = raw.iter().sum();
        let fixed = |w: &f64| {
            let w = w / total;
            (w * f64::from(1 << PRECISION) + if w >= 0.0 { 0.5 } else { -0.5 }) as i32
        };
        Taps { first, weights: raw.iter().map(fixed).collect() }
    };
    (0..to).map(row).collect()
}

/// Rounds a sum of taps to 8 bits. The sums fit: 255 times the taps' absolute sum (below 1.4) is below 2^31.
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// Resamples to `size` x `size`, whatever the aspect ratio; bit-identical to Pillow 10. Columns first, 8 bits in
/// between; an axis that has the size already is left alone.
#[must_use]
pub fn resize_bicubic(rgb: &Rgb, size: usize) -> Rgb {
    let narrow = if rgb.width == size { rgb.clone() } else { resize_rows(rgb, size) };
    if narrow.height == size { narrow } else { resize_columns(&narrow, size) }
}

fn resize_rows(rgb: &Rgb, size: usize) -> Rgb {
    let taps = taps(rgb.width, size);
    let mut data = Vec::with_capacity(rgb.height * size * 3);
    for row in rgb.data.chunks_exact(rgb.width * 3) {
        let pixels = row.as_chunks::<3>().0;
        for t in &taps {
            let mut sum = [HALF; 3];
            for (p, w) in pixels[t.first..].iter().zip(&t.weights) {
                for c in 0..3 {
                    sum[c] += i32::from(p[c]) * w;
                }
            }
            data.extend(sum.map(to_u8));
        }
    }
    Rgb { width: size, height: rgb.height, data }
}

fn resize_columns(rgb: &Rgb, size: usize) -> Rgb {
    let stride = rgb.width * 3;
    let mut sums = vec![HALF; stride];
    let mut data = Vec::with_capacity(size * stride);
    for t in taps(rgb.height, size) {
        sums.fill(HALF);
        for (row, w) in rgb.data[t.first * stride..].chunks_exact(stride).zip(&t.weights) {
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += i32::from(*v) * w;
            }
        }
        data.extend(sums.iter().map(|s| to_u8(*s)));
    }
    Rgb { width: rgb.width, height: size, data }
}

/// `(v / 255 - mean) / std`, channels first: `[3, height, width]`. Each of the 256 values is computed in f64 once.
#[must_use]
pub fn normalise(rgb: &Rgb) -> Vec<f32> {
    let n = rgb.width * rgb.height;
    let mut out = Vec::with_capacity(3 * n);
    for c in 0..3 {
        let table: [f32; 256] = std::array::from_fn(|v| ((v as f64 / 255.0 - MEAN[c]) / STD[c]) as f32);
        out.extend(rgb.data.iter().skip(c).step_by(3).map(|v| table[usize::from(*v)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
    use image::{ExtendedColorType as Colour, ImageEncoder};

    use super::*;
    use crate::groma::golden::Golden;

    #[test]
    fn operations_equal_the_goldens() {
        let g = Golden::open("ops");
        let mut seen = 0;
        for case in g.cases() {
            let id = case["id"].as_str().unwrap();
            let op = case["op"].as_str().unwrap();
            if !["resize_bicubic_u8", "normalise"].contains(&op) {
                continue;
            }
            let x = g.input(case, "x");
            let rgb = Rgb::new(x.shape[1], x.shape[0], x.u8().to_vec()).unwrap();
            if op == "normalise" {
                g.output(case, "y").assert_close(&normalise(&rgb), 1e-6, id);
            } else {
                let size = case["attrs"]["size"].as_u64().unwrap() as usize;
                let got = resize_bicubic(&rgb, size);
                assert_eq!((got.width, got.height), (size, size));
                assert!(got.data == g.output(case, "y").u8(), "{id} differs");
            }
            seen += 1;
        }
        assert!(seen >= 6, "only {seen} operations of preprocessing among the goldens");
    }

    #[test]
    fn photos_equal_the_goldens() {
        for folder in ["tiny", "tiny2", "tiny3", "tiny4", "tiny5", "small", "dinov2s"] {
            let g = Golden::open(folder);
            let size = g.config["image_size"].as_u64().unwrap_or(448) as usize;
            for (image, file) in g.book()["images"].as_object().unwrap() {
                let small = resize_bicubic(&decode(&g.file(file.as_str().unwrap())).unwrap(), size);
                let name = format!("{image}/pre.resized");
                assert!(
                    g.take_slice(&name, &small.data, &[size, size, 3]) == g.expected(&name).u8(),
                    "{folder}/{name}"
                );
                let name = format!("{image}/pre.pixels");
                let got = g.take_slice(&name, &normalise(&small), &[3, size, size]);
                g.expected(&name).assert_close(&got, 2e-6, &name);
            }
        }
    }

    /// A 3 x 2 picture whose pixels are all different.
    const PIXELS: [u8; 18] = [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52];

    #[test]
    fn every_kind_of_png_becomes_rgb() {
        let png = |data: &[u8], colour| {
            let mut out = Vec::new();
            PngEncoder::new(&mut out).write_image(data, 3, 2, colour).unwrap();
            decode(&out).unwrap()
        };
        assert_eq!(png(&PIXELS, Colour::Rgb8).data, PIXELS);
        let rgba: Vec<u8> = PIXELS.chunks(3).flat_map(|p| [p[0], p[1], p[2], 0]).collect();
        assert_eq!(png(&rgba, Colour::Rgba8).data, PIXELS, "alpha is dropped, not composited");
        let grey: Vec<u8> = (0..6).collect();
        assert_eq!(png(&grey, Colour::L8).data, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]);
        let wide: Vec<u8> = PIXELS.iter().flat_map(|v| (u16::from(*v) * 256 + 255).to_ne_bytes()).collect();
        assert_eq!(png(&wide, Colour::Rgb16).data, PIXELS);
        let wide: Vec<u8> = PIXELS
            .chunks(3)
            .flat_map(|p| [p[0], p[1], p[2], 7])
            .flat_map(|v| (u16::from(v) * 256).to_ne_bytes())
            .collect();
        assert_eq!(png(&wide, Colour::Rgba16).data, PIXELS);
        let mut out = Vec::new();
        WebPEncoder::new_lossless(&mut out).write_image(&PIXELS, 3, 2, Colour::Rgb8).unwrap();
        assert_eq!(decode(&out).unwrap().data, PIXELS);
    }

    #[test]
    fn orientation_is_honoured() {
        // Left half black, right half white, stored upright; orientation 6 turns it by 90 degrees clockwise.
        let data: Vec<u8> = (0..16).flat_map(|_| (0..32).flat_map(|x| [if x < 16 { 0 } else { 255 }; 3])).collect();
        let mut plain = Vec::new();
        JpegEncoder::new_with_quality(&mut plain, 100).write_image(&data, 32, 16, Colour::Rgb8).unwrap();
        let file = |orientation: u8| {
            let mut out = plain[..2].to_vec();
            let tiff = [
                b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(),
                &[orientation, 0, 0, 0, 0, 0, 0],
            ]
            .concat();
            out.write_all(&[0xff, 0xe1, 0, (tiff.len() + 2) as u8]).unwrap();
            out.extend(&tiff);
            out.extend(&plain[2..]);
            out
        };
        let stored = decode_with(&file(6), false).unwrap();
        let exif = |orientation| decode(&file(orientation)).unwrap();
        let upright = exif(1);
        assert_eq!((upright.width, upright.height), (32, 16));
        assert_eq!((stored.width, stored.data), (upright.width, upright.data));
        let turned = exif(6);
        assert_eq!((turned.width, turned.height), (16, 32));
        assert!(turned.data[0] < 10 && turned.data[turned.data.len() - 1] > 245, "black is on top after the turn");
        let turned = exif(8);
        assert!(
            turned.data[0] > 245 && turned.data[turned.data.len() - 1] < 10,
            "white is on top after the other turn"
        );
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        for (bytes, says) in [
            (b"".as_slice(), "this is no picture: expected PNG, JPEG or WebP, got 0 bytes of something else"),
            (
                b"GIF89a\x01\0\x01\0".as_slice(),
                "the format of the picture is not supported: expected PNG, JPEG or WebP, got Gif",
            ),
        ] {
            let e = decode(bytes).unwrap_err();
            assert_eq!((e.code, e.to_string().as_str()), (Code::ImageUnreadable, says));
        }
        let whole = Golden::open("tiny").file("photo_A.png");
        for n in [9, 40, whole.len() / 2] {
            assert_eq!(decode(&whole[..n]).unwrap_err().code, Code::ImageUnreadable);
        }
        let mut huge = whole;
        huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        // The header's checksum is checked after its numbers, or before: both are refusals, neither decodes.
        let crc = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        let e = decode(&huge).unwrap_err();
        assert_eq!(e.code, Code::ImageTooLarge);
        assert_eq!(e.to_string(), "the picture is too large: expected at most 100 megapixels, got 65536 x 65536");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, b| {
            (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
        })
    }
}
