//! From an answer's tokens to segments: text, and phrases tied to regions.
//!
//! The parser is incremental: it says what is known after every piece, and a closed segment never changes again.
//! It is lenient: whatever a model produces has a meaning, and stray tokens have none.

use serde::Serialize;

/// A token of an answer as the grammar sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Decoded text; never markup, whatever it says.
    Text(String),
    /// `<p>`
    PhraseOpen,
    /// `</p>`
    PhraseClose,
    /// `<roi>`
    ListOpen,
    /// `</roi>`
    ListClose,
    /// `<r0>` …
    Index(usize),
    /// A special token without a place in an answer; dropped.
    Other,
}

/// Special tokens that say nothing in an answer, whichever tokenizer they come from.
const NOT_TEXT: [&str; 16] = [
    "[PAD]",
    "<s>",
    "</s>",
    "<unk>",
    "<sep>",
    "<img>",
    "</img>",
    "<image>",
    "<region>",
    "<refer_box>",
    "<ground_box>",
    "<refer_feat>",
    "[grounding]",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
];

impl Piece {
    /// What a special token's name means; `None` where the name is none of the model's.
    #[must_use]
    pub fn mark(name: &str) -> Option<Self> {
        match name {
            "<p>" => Some(Piece::PhraseOpen),
            "</p>" => Some(Piece::PhraseClose),
            "<roi>" => Some(Piece::ListOpen),
            "</roi>" => Some(Piece::ListClose),
            _ if NOT_TEXT.contains(&name) => Some(Piece::Other),
            _ => {
                let digits = name.strip_prefix("<r")?.strip_suffix('>')?;
                let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                // A number that no machine holds is an index beyond all regions.
                all_digits.then(|| Piece::Index(digits.parse().unwrap_or(usize::MAX)))
            }
        }
    }
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text without regions.
    Text,
    /// A phrase and the regions it is tied to; the phrase is empty in a bare list of regions.
    Phrase,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Its place in the answer.
    pub index: usize,
    /// What it is. An open phrase that is never closed turns out to be text.
    pub kind: Kind,
    /// Its text without white space around it.
    pub text: String,
    /// The regions of a phrase, by id.
    pub regions: Vec<usize>,
    /// Whether it is complete; a closed segment never changes.
    pub closed: bool,
}

/// A segment as it stands after a piece, and the text that is new in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The segment's place in the answer.
    pub index: usize,
    /// What the segment is so far.
    pub kind: Kind,
    /// Its text so far.
    pub text: String,
    /// What was added to the text.
    pub delta: String,
    /// Whether it is complete.
    pub closed: bool,
    /// Its regions so far.
    pub regions: Vec<usize>,
}

/// Where the parser is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    Phrase,
    /// After `</p>`: a list may follow.
    Closing,
    List,
}

/// The incremental parser.
#[derive(Debug)]
pub struct Parser {
    num_regions: usize,
    state: State,
    /// The segment that is being read; it gets its place with its first visible character or region.
    text: String,
    /// White space that belongs to the text only if more text follows.
    held: String,
    regions: Vec<usize>,
    started: bool,
    segments: Vec<Segment>,
}

/// What a text is trimmed of: Unicode's white space and the four separators that Python counts too.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

impl Parser {
    /// A parser for an answer about so many regions; larger indices are dropped.
    #[must_use]
    pub fn new(num_regions: usize) -> Self {
        let (text, held) = (String::new(), String::new());
        Self { num_regions, state: State::Text, text, held, regions: Vec::new(), started: false, segments: Vec::new() }
    }

    /// The segments so far; the last one may be open.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Takes a piece and says what changed.
    pub fn push(&mut self, piece: Piece) -> Vec<Event> {
        let mut events = Vec::new();
        match (self.state, piece) {
            (State::List, Piece::Index(i)) => {
                if i < self.num_regions {
                    self.regions.push(i);
                    self.show(Kind::Phrase, String::new(), &mut events);
                }
            }
            (State::List, piece) => {
                self.close(Kind::Phrase, &mut events);
                // `</roi>` belongs to the list; anything else only ends it.
                if piece != Piece::ListClose {
                    self.outside_list(piece, &mut events);
                }
            }
            (State::Closing, Piece::ListOpen) => self.state = State::List,
            (State::Closing, piece) => {
                self.close(Kind::Phrase, &mut events);
                self.outside_list(piece, &mut events);
            }
            (_, piece) => self.outside_list(piece, &mut events),
        }
        events
    }

    /// A piece where the state is text or an open phrase.
    fn outside_list(&mut self, piece: Piece, events: &mut Vec<Event>) {
        match piece {
            Piece::Text(text) => self.append(&text, events),
            Piece::PhraseOpen => {
                self.close(Kind::Text, events);
                self.state = State::Phrase;
            }
            Piece::PhraseClose | Piece::ListOpen => {
                if self.state == State::Text {
                    self.close(Kind::Text, events);
                }
                self.held.clear();
                self.state = if piece == Piece::ListOpen { State::List } else { State::Closing };
            }
            Piece::ListClose | Piece::Index(_) | Piece::Other => {}
        }
    }

    fn append(&mut self, text: &str, events: &mut Vec<Event>) {
        let mut delta = String::new();
        for c in text.chars() {
            if is_space(c) {
                if self.started || !delta.is_empty() {
                    self.held.push(c);
                }
            } else {
                delta.push_str(&std::mem::take(&mut self.held));
                delta.push(c);
            }
        }
        if !delta.is_empty() {
            self.text.push_str(&delta);
            let kind = if self.state == State::Phrase { Kind::Phrase } else { Kind::Text };
            self.show(kind, delta, events);
        }
    }

    /// Brings the open segment up to date and tells of it.
    fn show(&mut self, kind: Kind, delta: String, events: &mut Vec<Event>) {
        if !self.started {
            self.started = true;
            let (index, text) = (self.segments.len(), String::new());
            self.segments.push(Segment { index, kind, text, regions: Vec::new(), closed: false });
        }
        let open = self.segments.last_mut().expect("a started segment is in the list");
        open.kind = kind;
        open.text.clone_from(&self.text);
        open.regions.clone_from(&self.regions);
        events.push(open.event(delta));
    }

    /// Ends what is open; nothing where nothing was started.
    fn close(&mut self, kind: Kind, events: &mut Vec<Event>) {
        if self.started {
            let open = self.segments.last_mut().expect("a started segment is in the list");
            open.kind = kind;
            open.closed = true;
            events.push(open.event(String::new()));
        }
        self.text.clear();
        self.held.clear();
        self.regions.clear();
        self.started = false;
        self.state = State::Text;
    }

    /// The answer is over: closes what is open.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let phrase = matches!(self.state, State::List | State::Closing);
        self.close(if phrase { Kind::Phrase } else { Kind::Text }, &mut events);
        events
    }
}

impl Segment {
    fn event(&self, delta: String) -> Event {
        let Segment { index, kind, text, regions, closed } = self.clone();
        Event { index, kind, text, delta, closed, regions }
    }
}

/// Whether no space stands before a segment that begins so.
#[must_use]
pub fn glued(text: &str) -> bool {
    text.starts_with(['.', ',', ';', ':', '!', '?', ')'])
}

/// The text of an answer: one space between segments, none before punctuation.
#[must_use]
pub fn join(segments: &[Segment]) -> String {
    join_with(segments, |s| s.text.clone())
}

/// The text of an answer for people, with the regions behind each phrase: `a dog [1, 2]`.
#[must_use]
pub fn join_numbered(segments: &[Segment]) -> String {
    join_with(segments, numbered)
}

/// A segment for people: `a dog [1, 2]`.
#[must_use]
pub fn numbered(segment: &Segment) -> String {
    let ids = segment.regions.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match (segment.text.is_empty(), segment.regions.is_empty()) {
        (_, true) => segment.text.clone(),
        (true, false) => format!("[{ids}]"),
        (false, false) => format!("{} [{ids}]", segment.text),
    }
}

fn join_with(segments: &[Segment], show: impl Fn(&Segment) -> String) -> String {
    let mut out = String::new();
    for text in segments.iter().map(show).filter(|t| !t.is_empty()) {
        if !out.is_empty() && !glued(&text) {
            out.push(' ');
        }
        out.push_str(&text);
    }
    out
}

#[cfg(test)]
#[path = "grounding_tests.rs"]
mod tests;
