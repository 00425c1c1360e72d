//! What can be typed: one definition of every command and option, from which help and completions come.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::pack::Quant;
use crate::tensor::DType;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "Ask questions about a photo and get answers whose phrases are tied to regions of it";

const AFTER: &str = "\
Examples:
  groma ask street.jpg \"Who is near the red car?\"
  groma detect street.jpg dog --overlay dogs.png

Text goes to stdout, everything else to stderr. PHOTO is a PNG, JPEG or WebP file, or - for stdin.
Boxes are x0,y0,x1,y1 in pixels of the photo as it is seen, after its EXIF orientation.

Exit status: 0 done, 1 the work failed, 2 the call was wrong (also: no such photo, a box outside
the photo, an empty or too long question), 3 no model, 4 no device, 130 interrupted.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "groma", version, about = ABOUT, after_help = AFTER, styles = STYLES, max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Ask a question about a photo
    #[command(after_help = "\
Examples:
  groma ask street.jpg \"Who is near the red car?\"
  groma ask street.jpg \"Is [1] taller than [2]?\" --box 10,20,200,220 --box 230,20,400,220
  curl -s https://example.org/street.jpg | groma ask - \"What is the weather like?\" --plain")]
    Ask(Ask),
    /// Find everything of a kind
    #[command(after_help = "Example:\n  groma detect street.jpg dog --overlay dogs.png")]
    Detect(Find),
    /// Find the one thing that a phrase describes
    #[command(after_help = "Example:\n  groma locate street.jpg \"the man in red\" --json")]
    Locate(Locate),
    /// Describe what is in a box
    #[command(after_help = "Example:\n  groma caption street.jpg --box 10,20,200,220 --long")]
    Caption(Caption),
    /// Describe the whole photo
    #[command(after_help = "Example:\n  groma describe street.jpg --overlay described.png")]
    Describe(Describe),
    /// List the regions that the model sees, without any language
    #[command(after_help = "Example:\n  groma regions street.jpg --limit 20 --json")]
    Regions(Regions),
    /// Turn a checkpoint into a model pack
    #[command(after_help = "\
Examples:
  groma convert models/groma-s -o dist/models/groma-s
  groma convert ./groma-7b-finetune -o packs/groma-7b --quant q4_0 --quant embedding=q8_0")]
    Convert(Convert),
    /// Compare every stage with golden data
    #[command(after_help = "\
Examples:
  groma verify tests/golden --device cpu
  groma verify tests/golden/tiny --device gpu --dump out")]
    Verify(Verify),
    /// Measure every stage, beside what the device could do
    ///
    /// First a small probe measures the device: its f32 rate (a kernel of multiply-adds; on the processor a matrix product on
    /// all threads) and its bandwidth (a sum over 64 MiB). A stage's floor is the longer of its operations at that rate and
    /// its bytes at that bandwidth.
    #[command(after_help = "\
Examples:
  groma bench --device gpu --json > bench.json
  groma bench --side 224
  groma bench --device gpu --random training/configs/groma-7b/config.json --quant q4_0")]
    Bench(Bench),
    /// Say which model and which device would be used
    #[command(after_help = "Example:\n  groma info --model groma-s --json")]
    Info(Info),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  groma completions bash > ~/.local/share/bash-completion/completions/groma")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum DeviceChoice {
    /// A GPU where there is a real one, else the processor
    #[default]
    Auto,
    /// A GPU, even one emulated in software
    Gpu,
    /// The processor
    Cpu,
}

/// How the processor multiplies quantised matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum NumericsChoice {
    /// Activations are rounded to 8 bits
    #[default]
    Fast,
    /// Activations stay 32-bit floats
    Exact,
}

/// Which model, and where it runs.
#[derive(Clone, Debug, Args)]
pub(super) struct Engine {
    /// A model pack or checkpoint: its folder, its model.json, or the name of an installed pack
    #[arg(short, long, value_name = "MODEL", env = "GROMA_MODEL", hide_env_values = true)]
    pub model: Option<String>,
    /// Where it runs
    #[arg(short, long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// How the processor multiplies quantised matrices
    #[arg(long, value_name = "NUMERICS", default_value = "fast")]
    pub numerics: NumericsChoice,
}

/// How the result is told.
#[derive(Clone, Debug, Args)]
pub(super) struct Output {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Say nothing but the result and errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// What every question shares.
#[derive(Clone, Debug, Args)]
pub(super) struct Say {
    #[command(flatten)]
    pub engine: Engine,
    #[command(flatten)]
    pub output: Output,
    /// Draw the answer's numbered boxes on the photo and save it (PNG, JPEG or WebP)
    #[arg(long, value_name = "FILE")]
    pub overlay: Option<PathBuf>,
    /// Stop the answer after so many tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive)]
    pub max_tokens: usize,
    /// Chance in the choice of words: 0 always takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Makes chance repeatable
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// `groma ask`
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The photo, or - for stdin
    pub photo: PathBuf,
    /// The question; [1], [2] … in it stand for the boxes
    pub question: String,
    /// A box that the question is about (may be given several times)
    #[arg(long = "box", value_name = "x0,y0,x1,y1", allow_hyphen_values = true)]
    pub boxes: Vec<PixelBox>,
    /// Do not ask for phrases tied to regions
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub say: Say,
}

/// `groma detect`
#[derive(Debug, Args)]
pub(super) struct Find {
    /// The photo, or - for stdin
    pub photo: PathBuf,
    /// What to find: dog
    pub label: String,
    #[command(flatten)]
    pub say: Say,
}

/// `groma locate`
#[derive(Debug, Args)]
pub(super) struct Locate {
    /// The photo, or - for stdin
    pub photo: PathBuf,
    /// What to find: the man in red
    pub phrase: String,
    #[command(flatten)]
    pub say: Say,
}

/// `groma caption`
#[derive(Debug, Args)]
pub(super) struct Caption {
    /// The photo, or - for stdin
    pub photo: PathBuf,
    /// The box to describe
    #[arg(long = "box", value_name = "x0,y0,x1,y1", required = true, allow_hyphen_values = true)]
    pub bbox: PixelBox,
    /// In detail
    #[arg(long)]
    pub long: bool,
    #[command(flatten)]
    pub say: Say,
}

/// `groma describe`
#[derive(Debug, Args)]
pub(super) struct Describe {
    /// The photo, or - for stdin
    pub photo: PathBuf,
    #[command(flatten)]
    pub say: Say,
}

/// `groma regions`
#[derive(Debug, Args)]
pub(super) struct Regions {
    /// The photo, or - for stdin
    pub photo: PathBuf,
    /// The most regions (default: as many as a prompt of the model holds)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub limit: Option<usize>,
    /// Only regions of a higher score (default: the model's own)
    #[arg(long, value_name = "S", value_parser = unit)]
    pub min_score: Option<f32>,
    /// Drop regions that overlap a better one by a higher IoU (default: the model's own)
    #[arg(long, value_name = "T", value_parser = unit)]
    pub nms: Option<f32>,
    /// Draw the numbered boxes on the photo and save it (PNG, JPEG or WebP)
    #[arg(long, value_name = "FILE")]
    pub overlay: Option<PathBuf>,
    #[command(flatten)]
    pub engine: Engine,
    #[command(flatten)]
    pub output: Output,
}

/// `groma convert`
#[derive(Debug, Args)]
pub(super) struct Convert {
    /// A folder of official form, one with bases.json, or a Hugging Face repository (owner/name)
    pub source: String,
    /// The folder of the pack
    #[arg(short = 'o', long = "output", value_name = "PACK")]
    pub pack: PathBuf,
    /// Where the bases lie that bases.json names
    #[arg(long, value_name = "DIR")]
    pub bases: Option<PathBuf>,
    /// The type of all matrices, or of one component's: q4_0, q4_1, q8_0, f16, f32, keep
    #[arg(long = "quant", value_name = "TYPE|COMPONENT=TYPE")]
    pub quant: Vec<String>,
    /// Replace a pack that is there
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub output: Output,
}

/// `groma verify`
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A folder of golden data, or one that holds several
    pub dir: PathBuf,
    /// Where the bases lie whose weights are not stored
    #[arg(long, value_name = "DIR")]
    pub bases: Option<PathBuf>,
    /// Write what was computed, in the goldens' own form
    #[arg(long, value_name = "OUT")]
    pub dump: Option<PathBuf>,
    /// Where it runs
    #[arg(short, long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print failures and sums only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `groma bench`
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(flatten)]
    pub engine: Engine,
    #[command(flatten)]
    pub output: Output,
    /// How often each stage runs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    pub runs: usize,
    /// Tokens that are decoded
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    pub tokens: usize,
    /// Measure only the image encoder, for a picture of this many pixels a side
    #[arg(long, value_name = "PIXELS", value_parser = positive)]
    pub side: Option<usize>,
    /// Measure a config.json, not MODEL, with weights of noise that are made on the device; without a perceiver_cfg in it,
    /// the language model alone
    #[arg(long, value_name = "CONFIG")]
    pub random: Option<PathBuf>,
    /// The type of the random weights
    #[arg(long, value_name = "TYPE", default_value = "q4_0", requires = "random", value_parser = tensor_type())]
    pub quant: DType,
}

/// `groma info`
#[derive(Debug, Args)]
pub(super) struct Info {
    #[command(flatten)]
    pub engine: Engine,
    #[command(flatten)]
    pub output: Output,
}

/// A box as it is typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PixelBox(pub [f32; 4]);

impl FromStr for PixelBox {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "a box is four numbers: x0,y0,x1,y1".to_owned();
        let numbers: Vec<f32> = text
            .split(',')
            .map(|n| n.trim().parse().ok().filter(|v: &f32| v.is_finite()))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let bbox: [f32; 4] = numbers.try_into().map_err(|_| wrong())?;
        if bbox[2] <= bbox[0] || bbox[3] <= bbox[1] {
            return Err("the box has no area: x0 < x1 and y0 < y1 are needed".to_owned());
        }
        Ok(Self(bbox))
    }
}

/// The words of tensor types: those of `--quant` but `keep`.
fn tensor_type() -> impl TypedValueParser<Value = DType> {
    let of = |word: &str| match Quant::parse(word) {
        Some(Quant::To(dtype)) => Some(dtype),
        _ => None,
    };
    let words = Quant::WORDS.into_iter().filter(move |word| of(word).is_some());
    PossibleValuesParser::new(words).try_map(move |word| of(&word).ok_or("this is no type of tensors"))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number from 1 upwards is needed".to_owned())
}

fn temperature(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok();
    value.filter(|t| (0.0..=100.0).contains(t)).ok_or_else(|| "a number from 0 to 100 is needed".to_owned())
}

fn unit(text: &str) -> Result<f32, String> {
    let value: Option<f32> = text.parse().ok();
    value.filter(|t| (0.0..=1.0).contains(t)).ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains(&format!("groma {}", command.get_name())), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn boxes_are_four_numbers_with_area() {
        assert_eq!("1,2,3.5, 4".parse(), Ok(PixelBox([1.0, 2.0, 3.5, 4.0])));
        assert_eq!("-5,-5,10,10".parse(), Ok(PixelBox([-5.0, -5.0, 10.0, 10.0])));
        for bad in ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,NaN,4", "1,2,inf,4", "3,2,1,4", "1,2,1,4"] {
            assert!(bad.parse::<PixelBox>().is_err(), "{bad}");
        }
    }
}
