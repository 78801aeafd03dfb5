//! Server-sent events as bytes: where one event ends and the next begins.
//!
//! The relay passes events on exactly as they came, comments and odd line endings included, so the
//! codec never parses and prints again: it cuts. Line ends are LF, CR or CRLF, and an event ends
//! with an empty line (WHATWG HTML, section 9.2.6).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

/// Media type of an event stream.
pub(crate) const MEDIA_TYPE: &str = "text/event-stream";

/// The event that ends an OpenAI stream.
pub(crate) const DONE: &[u8] = b"data: [DONE]\n\n";

/// Cuts a stream that arrives in chunks of any size into whole events.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    pending: BytesMut,
    /// Start of the line being scanned.
    line: usize,
    /// First byte not yet scanned.
    at: usize,
}

impl Splitter {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.pending.extend_from_slice(chunk);
    }

    /// The next whole event, with the empty line that ends it.
    pub(crate) fn next_event(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.pending.get(self.at..)?;
            let Some(offset) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.at = self.pending.len();
                return None;
            };
            let end = self.at + offset;
            let next = match (rest.get(offset), rest.get(offset + 1)) {
                // Whether this CR stands alone is known only with the next byte.
                (Some(b'\r'), None) => {
                    self.at = end;
                    return None;
                }
                (Some(b'\r'), Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            let empty = end == self.line;
            (self.line, self.at) = (next, next);
            if empty {
                (self.line, self.at) = (0, 0);
                return Some(self.pending.split_to(next).freeze());
            }
        }
    }

    /// Bytes of the event that is not complete yet.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Gives up the bytes of the incomplete event, at the end of a stream or because there are too
    /// many. Cutting goes on in the middle of that event.
    pub(crate) fn take_pending(&mut self) -> Bytes {
        // A line that has begun must not look empty when its end arrives.
        let mid_line = self.line < self.pending.len();
        let taken = self.pending.split().freeze();
        (self.line, self.at) = (0, 0);
        if mid_line {
            // No line can start beyond what was taken, so this line never compares as empty.
            self.line = usize::MAX;
        }
        taken
    }
}

/// All events of a whole stream. What follows the last empty line counts as an event, because some
/// clients read it as one.
pub(crate) fn split_all(stream: &[u8]) -> Vec<Bytes> {
    let mut splitter = Splitter::default();
    splitter.push(stream);
    let mut events: Vec<Bytes> = std::iter::from_fn(|| splitter.next_event()).collect();
    let rest = splitter.take_pending();
    if !rest.is_empty() {
        events.push(rest);
    }
    events
}

/// The `data` of an event, its lines joined; `None` for comments and other events without data.
pub(crate) fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    values(event, b"data")
        .map(Cow::Borrowed)
        .reduce(|before, value| Cow::Owned([before.as_ref(), b"\n", value.as_ref()].concat()))
}

/// What an event says it is; the last word counts.
pub(crate) fn name(event: &[u8]) -> Option<&[u8]> {
    values(event, b"event").last()
}

/// The values of an event's fields of this name.
pub(crate) fn values<'a>(event: &'a [u8], field: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let event = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    // A CRLF yields one empty line too many; empty lines carry no field.
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    lines.filter_map(move |line| match line.strip_prefix(field)? {
        [] => Some(&[][..]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    })
}

/// An event whose data is a JSON document.
pub(crate) fn event(document: &Value) -> Bytes {
    // JSON as serde_json prints it holds no line ends.
    named_event(None, &document.to_string())
}

/// An event with this data. `name` is one line.
pub(crate) fn named_event(name: Option<&str>, data: &str) -> Bytes {
    let mut event = String::with_capacity(data.len() + 8);
    if let Some(name) = name {
        event.extend(["event: ", name, "\n"]);
    }
    for line in data.split(['\n', '\r']) {
        event.extend(["data: ", line, "\n"]);
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes `stream` in pieces that end at `cuts` and returns the events and the rest.
    fn split_at(stream: &[u8], cuts: &[usize]) -> (Vec<Bytes>, Bytes) {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let to = cut.clamp(from, stream.len());
            splitter.push(&stream[from..to]);
            events.extend(std::iter::from_fn(|| splitter.next_event()));
            from = to;
        }
        (events, splitter.take_pending())
    }

    #[track_caller]
    fn check(stream: &str, events: &[&str], rest: &str) {
        let (got, got_rest) = split_at(stream.as_bytes(), &[]);
        assert_eq!(got, events.iter().map(|event| Bytes::from(event.to_string())).collect::<Vec<_>>());
        assert_eq!(got_rest, rest);
    }

    #[test]
    fn an_event_ends_with_an_empty_line() {
        check("", &[], "");
        check("data: 1\n\n", &["data: 1\n\n"], "");
        check("data: 1\n\ndata: 2\n\n", &["data: 1\n\n", "data: 2\n\n"], "");
        check("data: 1\r\n\r\ndata: 2\n\n", &["data: 1\r\n\r\n", "data: 2\n\n"], "");
        check("data: 1\r\rdata: 2\r\rx", &["data: 1\r\r", "data: 2\r\r"], "x");
        check(": ping\n\ndata: a\ndata: b\nid: 7\n\n", &[": ping\n\n", "data: a\ndata: b\nid: 7\n\n"], "");
        check("data: 1\n", &[], "data: 1\n");
        check("\n\ndata: 1\n\n", &["\n", "\n", "data: 1\n\n"], "");
        // The CR may be half of a CRLF that has not arrived.
        check("data: 1\r\n\r", &[], "data: 1\r\n\r");
    }

    #[test]
    fn giving_up_a_long_event_keeps_the_place() {
        let mut splitter = Splitter::default();
        splitter.push(b"data: long");
        assert_eq!(splitter.next_event(), None);
        assert_eq!(splitter.take_pending(), "data: long");
        splitter.push(b"\ndata: more\n\ndata: 2\n\n");
        assert_eq!(splitter.next_event().unwrap(), "\ndata: more\n\n");
        assert_eq!(splitter.next_event().unwrap(), "data: 2\n\n");
    }

    #[track_caller]
    fn check_data(event: &str, expected: Option<&str>) {
        assert_eq!(data(event.as_bytes()).as_deref(), expected.map(str::as_bytes));
    }

    #[test]
    fn data_lines_are_joined() {
        check_data("data: x\n\n", Some("x"));
        check_data("data:x\r\n\r\n", Some("x"));
        check_data("data:  x\n\n", Some(" x"));
        check_data("event: m\ndata: a\ndata: b\n\n", Some("a\nb"));
        check_data("data\n\n", Some(""));
        check_data(": data: x\n\n", None);
        check_data("database: x\n\n", None);
        check_data("\u{feff}data: x\n\n", Some("x"));
    }

    #[test]
    fn named_events_read_back() {
        let event = named_event(Some("ping"), "a\n b\r\n{}");
        assert_eq!(event, "event: ping\ndata: a\ndata:  b\ndata: \ndata: {}\n\n");
        assert_eq!((name(&event), data(&event).as_deref()), (Some(&b"ping"[..]), Some(&b"a\n b\n\n{}"[..])));
        assert_eq!((name(b"data: x\n\n"), name(b"event: a\nevent:b\n\n")), (None, Some(&b"b"[..])));
    }

    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just("data: {}"),
            Just(": c"),
            Just("é"),
            Just("id: 1")
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events(
            stream in streams(),
            cuts in proptest::collection::vec(0_usize..120, 0..20),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            prop_assert_eq!(split_at(&stream, &cuts), split_at(&stream, &[]));
        }

        #[test]
        fn what_is_cut_is_what_came(stream in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(split_all(&stream).concat(), stream);
        }

        #[test]
        fn a_printed_event_reads_back(text in ".*") {
            let document = serde_json::json!({ "text": text });
            let event = event(&document);
            let read = serde_json::from_slice::<Value>(&data(&event).unwrap()).unwrap();
            prop_assert_eq!(read, document);
            prop_assert_eq!(split_all(&event).len(), 1);
        }
    }
}
