//! A QR code as PNG, SVG or text, and which of them a caller wants.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qrcode::render::{svg, unicode};
use qrcode::{Color, EcLevel, QrCode};

/// Pixels of one module of the PNG.
const MODULE: usize = 8;
/// Modules of white around the code; the standard wants four.
const MARGIN: usize = 4;

/// How a code is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An image.
    Png,
    /// An image that scales.
    Svg,
    /// The text and the image as JSON.
    Json,
    /// For a terminal.
    Text,
    /// The text in the code.
    Raw,
}

impl Format {
    /// The format with this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "png" | "image" => Self::Png,
            "svg" => Self::Svg,
            "json" => Self::Json,
            "text" => Self::Text,
            "raw" => Self::Raw,
            _ => return None,
        })
    }

    /// The format that an `Accept` header likes best; none: it likes none.
    pub fn accepted(accept: &str) -> Option<Self> {
        let mut ranges: Vec<(&str, f32)> = accept
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().filter(|media| !media.is_empty())?;
                let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok());
                Some((media, weight.unwrap_or(1.0)))
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        if ranges.is_empty() {
            return Some(Self::Json);
        }
        // Of equals the first one counts: the sort keeps their order.
        ranges.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        ranges.iter().find_map(|(media, _)| {
            Some(match media.to_ascii_lowercase().as_str() {
                "image/png" | "image/*" => Self::Png,
                "image/svg+xml" => Self::Svg,
                "application/json" | "application/*" | "*/*" => Self::Json,
                "text/plain" | "text/*" => Self::Text,
                _ => return None,
            })
        })
    }
}

/// A QR code, drawn.
pub struct Image(QrCode);

impl Image {
    /// Draws a text; none: it is too long for any code.
    pub fn of(text: &str) -> Option<Self> {
        // Screens have no scratches: the least correction gives the coarsest code, which phones read best.
        QrCode::with_error_correction_level(text, EcLevel::L).ok().map(Self)
    }

    /// As PNG, black and white.
    pub fn png(&self) -> Vec<u8> {
        let modules = self.0.width();
        let side = (modules + 2 * MARGIN) * MODULE;
        let stride = side.div_ceil(8);
        let mut pixels = vec![0xff_u8; stride * side];
        let colors = self.0.to_colors();
        for (at, _) in colors.iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
            let (x, y) = ((at % modules + MARGIN) * MODULE, (at / modules + MARGIN) * MODULE);
            // A module is one byte wide: eight pixels of one bit.
            for row in y..y + MODULE {
                pixels[row * stride + x / 8] = 0;
            }
        }
        let side = u32::try_from(side).expect("the largest code has 177 modules a side");
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.expect("memory takes an image whose size is that of its pixels");
        bytes
    }

    /// As PNG in a URL.
    pub fn data_url(&self) -> String {
        format!("data:image/png;base64,{}", STANDARD.encode(self.png()))
    }

    /// As SVG.
    pub fn svg(&self) -> String {
        self.0.render::<svg::Color<'_>>().min_dimensions(256, 256).build()
    }

    /// For a terminal, dark or light: half blocks, light on dark, as phones read it from most screens.
    pub fn text(&self) -> String {
        let text = self
            .0
            .render::<unicode::Dense1x2>()
            .dark_color(unicode::Dense1x2::Light)
            .light_color(unicode::Dense1x2::Dark)
            .build();
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "2@AbCdEf/GhIjKl+MnOpQr==,key1key1key1key1key1key1key1key1=,key2key2key2=,secret=,1";

    #[test]
    fn the_png_shows_the_modules_of_the_code_within_its_margin() {
        let image = Image::of(CODE).unwrap();
        let bytes = image.png();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let modules = image.0.width();
        assert_eq!(info.width as usize, (modules + 2 * MARGIN) * MODULE);
        let dark = |x: usize, y: usize| {
            let (x, y) = (x * MODULE + MODULE / 2, y * MODULE + MODULE / 2);
            pixels[y * info.line_size + x / 8] >> (7 - x % 8) & 1 == 0
        };
        for y in 0..modules + 2 * MARGIN {
            for x in 0..modules + 2 * MARGIN {
                let within =
                    (MARGIN..modules + MARGIN).contains(&x) && (MARGIN..modules + MARGIN).contains(&y);
                let is = within && image.0[(x - MARGIN, y - MARGIN)] == Color::Dark;
                assert_eq!(dark(x, y), is, "{x} {y}");
            }
        }
    }

    #[test]
    fn every_form_shows_the_same_code() {
        let image = Image::of(CODE).unwrap();
        assert!(image.data_url().starts_with("data:image/png;base64,iVBORw0KGgo"));
        assert!(image.svg().contains("<svg") && !image.svg().contains("<script"));
        let text = image.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), (image.0.width() + 2 * MARGIN).div_ceil(2));
        assert!(lines.iter().all(|line| line.chars().count() == image.0.width() + 2 * MARGIN));
        assert!(lines[0].chars().all(|c| c == '█'), "the margin is light");
        assert!(Image::of(&"x".repeat(4000)).is_none());
    }

    #[test]
    fn the_format_is_the_one_that_is_liked_best() {
        for (accept, format) in [
            ("", Some(Format::Json)),
            ("*/*", Some(Format::Json)),
            ("image/png", Some(Format::Png)),
            ("image/svg+xml", Some(Format::Svg)),
            ("text/plain", Some(Format::Text)),
            ("image/avif,image/webp,image/*,*/*;q=0.8", Some(Format::Png)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Format::Json)),
            ("image/png;q=0.5, image/svg+xml;q=0.9", Some(Format::Svg)),
            ("image/png;q=0, text/plain", Some(Format::Text)),
            ("video/mp4", None),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
        assert_eq!(Format::named("raw"), Some(Format::Raw));
        assert_eq!(Format::named("gif"), None);
    }
}
