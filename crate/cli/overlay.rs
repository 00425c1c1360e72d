//! Numbered, coloured boxes on a photo.
//!
//! The digits are a small bitmap table: a font for ten shapes would be larger than all of this room.

use std::path::Path;

use image::{ImageFormat, Rgb as Pixel, RgbImage};
use imageproc::drawing::{draw_filled_rect_mut, draw_hollow_rect_mut};
use imageproc::rect::Rect;

use crate::error::{Code, Error, Result};
use crate::groma::preprocess::Rgb;

/// Colours that people with any colour vision can tell apart (Okabe and Ito), in the order of the numbers.
const PALETTE: [[u8; 3]; 8] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
    [255, 255, 255],
];

/// 5 x 7 dots a digit, a row a byte, the left dot in bit 4.
const DIGITS: [[u8; 7]; 10] = [
    [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111],
    [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
];

const WHITE: Pixel<u8> = Pixel([255; 3]);
const BLACK: Pixel<u8> = Pixel([0; 3]);

/// A box to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mark {
    /// Its number; `None` for a box that a person gave.
    pub number: Option<usize>,
    /// `[x0, y0, x1, y1]` in pixels.
    pub bbox: [f32; 4],
}

/// The colour of a number.
#[must_use]
pub(super) fn colour(number: usize) -> [u8; 3] {
    PALETTE[number % PALETTE.len()]
}

/// The format that a file's name asks for, in a folder that is there. Called before any work, so that a wrong name costs
/// nothing.
pub(super) fn format_of(path: &Path) -> Result<ImageFormat> {
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    if let Some(missing) = folder.filter(|f| !f.is_dir()) {
        let e = Error::new(Code::Usage, "the overlay's folder is not there");
        return Err(e.expected("a folder that exists", missing.display()));
    }
    match ImageFormat::from_path(path) {
        Ok(f @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => Ok(f),
        _ => {
            let e = Error::new(Code::Usage, "the overlay's name has no known ending");
            Err(e.expected(".png, .jpg or .webp", path.display()))
        }
    }
}

/// Draws the marks on the photo and saves it. The file appears whole or not at all.
pub(super) fn save(photo: &Rgb, marks: &[Mark], path: &Path) -> Result<()> {
    let format = format_of(path)?;
    let picture = draw(photo, marks)?;
    let mut bytes = Vec::new();
    picture
        .write_to(&mut std::io::Cursor::new(&mut bytes), format)
        .map_err(|e| Error::new(Code::Io, format!("the overlay can't be encoded: {e}")).at(path.display()))?;
    super::out::save(path, &bytes)
}

/// Draws the marks on a copy of the photo, the first ones on top.
pub(super) fn draw(photo: &Rgb, marks: &[Mark]) -> Result<RgbImage> {
    let mut canvas = RgbImage::from_raw(photo.width as u32, photo.height as u32, photo.data.clone())
        .ok_or_else(|| Error::internal("a photo's pixels do not fill it"))?;
    // One dot of a digit; a label is then about a twenty-fifth of the shorter side.
    let dot = (photo.width.min(photo.height) / 220).max(2) as i32;
    for mark in marks.iter().rev() {
        outline(&mut canvas, mark, dot + 1);
    }
    for mark in marks.iter().rev() {
        label(&mut canvas, mark, dot);
    }
    Ok(canvas)
}

/// A box's corners as whole pixels inside the canvas.
fn corners(canvas: &RgbImage, mark: &Mark) -> [i32; 4] {
    let (w, h) = (canvas.width() as f32, canvas.height() as f32);
    let [x0, y0, x1, y1] = mark.bbox;
    // max and min instead of clamp: they take NaN.
    let [x0, y0] = [x0.max(0.0).min(w - 1.0), y0.max(0.0).min(h - 1.0)];
    [x0 as i32, y0 as i32, x1.max(x0 + 1.0).min(w) as i32, y1.max(y0 + 1.0).min(h) as i32]
}

fn outline(canvas: &mut RgbImage, mark: &Mark, thickness: i32) {
    let [x0, y0, x1, y1] = corners(canvas, mark);
    let ink = mark.number.map_or(WHITE, |n| Pixel(colour(n)));
    for t in 0..thickness {
        let (w, h) = (x1 - x0 - 2 * t, y1 - y0 - 2 * t);
        if w < 1 || h < 1 {
            break;
        }
        let rect = Rect::at(x0 + t, y0 + t).of_size(w as u32, h as u32);
        // A dark inner line keeps the box visible on whatever is of its own colour.
        draw_hollow_rect_mut(canvas, rect, if t + 1 == thickness { BLACK } else { ink });
    }
}

fn label(canvas: &mut RgbImage, mark: &Mark, dot: i32) {
    let Some(number) = mark.number else { return };
    let [x0, y0, ..] = corners(canvas, mark);
    let digits: Vec<usize> = number.to_string().bytes().map(|b| usize::from(b - b'0')).collect();
    let (w, h) = ((digits.len() as i32 * 6 + 1) * dot, 9 * dot);
    // Inside the box's corner, but never beyond the photo.
    let x = x0.min(canvas.width() as i32 - w).max(0);
    let y = y0.min(canvas.height() as i32 - h).max(0);
    let paper = colour(number);
    draw_filled_rect_mut(canvas, Rect::at(x, y).of_size(w as u32, h as u32), Pixel(paper));
    let light = paper.iter().zip([299, 587, 114]).map(|(v, share)| u32::from(*v) * share).sum::<u32>() / 1000;
    let ink = if light > 110 { BLACK } else { WHITE };
    for (place, digit) in digits.into_iter().enumerate() {
        for (row, bits) in DIGITS[digit].iter().enumerate() {
            for column in (0..5).filter(|c| bits >> (4 - c) & 1 == 1) {
                let at = Rect::at(x + (1 + 6 * place as i32 + column) * dot, y + (1 + row as i32) * dot);
                draw_filled_rect_mut(canvas, at.of_size(dot as u32, dot as u32), ink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize) -> Rgb {
        Rgb::new(width, height, vec![128; width * height * 3]).unwrap()
    }

    #[test]
    fn boxes_and_numbers_are_drawn() {
        let marks = [
            Mark { number: Some(7), bbox: [10.0, 10.0, 60.0, 60.0] },
            Mark { number: None, bbox: [70.0, 70.0, 90.0, 90.0] },
        ];
        let out = draw(&grey(100, 100), &marks).unwrap();
        assert_eq!(out.get_pixel(59, 40).0, colour(7));
        assert_eq!(out.get_pixel(70, 80).0, [255; 3]);
        assert_eq!(out.get_pixel(30, 50).0, [128; 3], "the inside is left alone");
        // The 7: a bar on top of the label, black on white.
        let row: Vec<bool> = (0..7).map(|i| out.get_pixel(10 + i * 2, 12).0 == [0; 3]).collect();
        assert_eq!(row, [false, true, true, true, true, true, false]);
    }

    #[test]
    fn no_box_is_too_odd_to_draw() {
        for (w, h) in [(1, 1), (3, 2), (100, 40), (2000, 3)] {
            let far = [-50.0, -50.0, 1e9, 1e9];
            let boxes = [far, [0.0; 4], [w as f32, h as f32, w as f32, h as f32], [5.0, 5.0, 4.0, 4.0], [f32::NAN; 4]];
            let marks: Vec<Mark> = boxes.iter().map(|b| Mark { number: Some(1234), bbox: *b }).collect();
            assert_eq!(draw(&grey(w, h), &marks).unwrap().dimensions(), (w as u32, h as u32));
        }
    }

    #[test]
    fn files_appear_whole_in_the_format_of_their_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "a.JPG", "a.webp"] {
            save(&grey(40, 30), &[], &dir.path().join(name)).unwrap();
            let back = crate::groma::preprocess::decode(&std::fs::read(dir.path().join(name)).unwrap()).unwrap();
            assert_eq!((back.width, back.height), (40, 30));
        }
        assert_eq!(format_of(Path::new("a.gif")).unwrap_err().code, Code::Usage);
        assert_eq!(format_of(Path::new("a")).unwrap_err().code, Code::Usage);
        let e = save(&grey(4, 3), &[], &dir.path().join("none/a.png")).unwrap_err();
        assert_eq!(e.code, Code::Usage, "{e}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing half-written stays");
    }
}
