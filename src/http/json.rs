//! JSON without two readings.
//!
//! ```text
//! text --Json::check--> Json --members--> keys and values, each the slice of the text that it was
//! ```
//!
//! Parsers differ in what they make of a key that comes twice, of half a surrogate pair, of a number
//! that does not fit, and of nesting that overflows one stack and not the next. Whoever checks a
//! message with one parser and uses it with another can be made to check something else than is
//! used. So such text is refused, once and in one pass that builds no tree; what is left, every
//! parser reads alike.
//!
//! Costs: time in proportion to the text, and 24 bytes for each key of the objects that are open.

use std::borrow::Cow;

/// Deepest nesting of objects and arrays.
pub(super) const MAX_DEPTH: usize = 64;

/// Most values, all told. A statement for SQLite has at most 32,766 parameters; beyond that, text of
/// a mebibyte becomes a tree of a hundred.
pub(super) const MAX_VALUES: usize = 1 << 15;

/// Text that is one JSON value, and nothing else, for every parser.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Json<'a>(&'a str);

/// One member of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) value: Json<'a>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Array,
    Boolean,
    Null,
    Number,
    Object,
    String,
}

/// Why text is no such value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    /// Nested deeper than [`MAX_DEPTH`].
    Depth,
    /// A key comes twice in one object.
    Duplicate,
    /// No 64-bit integer, or beyond what a double holds.
    Number,
    /// Not JSON, or something comes after it.
    Syntax,
    /// More than [`MAX_VALUES`].
    Values,
}

impl<'a> Json<'a> {
    pub(super) fn check(text: &'a str) -> Result<Self, Flaw> {
        let mut reader = Reader { text, at: 0, values: 0, keys: Vec::new() };
        reader.value(0)?;
        reader.skip_space();
        if reader.at < text.len() {
            return Err(Flaw::Syntax);
        }
        Ok(Self(text.trim_ascii()))
    }

    pub(super) fn text(self) -> &'a str {
        self.0
    }

    pub(super) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            Some(b'{') => Kind::Object,
            Some(b'"') => Kind::String,
            _ => Kind::Number,
        }
    }

    /// The string that it is, if it is one.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let body = self.0.strip_prefix('"')?.strip_suffix('"')?;
        unescaped(self.0, body)
    }

    /// The integer that it is, if it is written as one.
    pub(super) fn integer(self) -> Option<i64> {
        self.0.parse().ok().filter(|_| self.kind() == Kind::Number && self.0 != "-0")
    }

    /// The members of the object that it is, in order; none of anything else.
    pub(super) fn members(self) -> Vec<Member<'a>> {
        let mut members = Vec::new();
        let Some(mut rest) = self.0.strip_prefix('{') else { return members };
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
            let (key, after) = rest.split_at(skip(rest));
            let Some(body) = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) else {
                return members;
            };
            let after = after.trim_start_matches([' ', '\t', '\n', '\r', ':']);
            let (value, after) = after.split_at(skip(after));
            let Some(key) = unescaped(key, body) else { return members };
            members.push(Member { key, value: Self(value) });
            rest = after;
        }
    }

    /// The member called `key`.
    pub(super) fn member(self, key: &str) -> Option<Self> {
        self.members().into_iter().find(|member| member.key == key).map(|member| member.value)
    }
}

/// What the string `quoted` says; `body` is the same without its quotation marks.
fn unescaped<'a>(quoted: &str, body: &'a str) -> Option<Cow<'a, str>> {
    if body.contains('\\') {
        serde_json::from_str(quoted).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(body))
    }
}

/// The length of the value that `text`, the rest of checked text, begins with.
fn skip(text: &str) -> usize {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            if !in_string && depth == 0 {
                return at + 1;
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            b'}' | b']' if depth == 1 => return at + 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
    /// Of the objects that are open, the outermost first.
    keys: Vec<Cow<'a, str>>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over `byte`, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Flaw> {
        if self.take(byte) { Ok(()) } else { Err(Flaw::Syntax) }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A value inside of `depth` others.
    fn value(&mut self, depth: usize) -> Result<(), Flaw> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Flaw::Values);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(Flaw::Depth),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => ["true", "false", "null"]
                .into_iter()
                .find(|literal| self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()))
                .map(|literal| self.at += literal.len())
                .ok_or(Flaw::Syntax),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Flaw> {
        let first = self.keys.len();
        self.expect(b'{')?;
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.keys.push(key);
            self.skip_space();
            self.expect(b':')?;
            self.value(depth)?;
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
        }
        let keys = self.keys.get_mut(first..).unwrap_or_default();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Flaw::Duplicate);
        }
        self.keys.truncate(first);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), Flaw> {
        self.expect(b'[')?;
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// A string, and what it says.
    fn string(&mut self) -> Result<Cow<'a, str>, Flaw> {
        let start = self.at;
        self.expect(b'"')?;
        let mut has_escapes = false;
        loop {
            match self.peek().ok_or(Flaw::Syntax)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 2;
                }
                0..=0x1f => return Err(Flaw::Syntax),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).ok_or(Flaw::Syntax)?;
        if has_escapes {
            // Also finds escapes that are none, and halves of surrogate pairs.
            return serde_json::from_str(quoted).map(Cow::Owned).map_err(|_| Flaw::Syntax);
        }
        Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
    }

    fn number(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut is_integer = true;
        if self.take(b'.') {
            is_integer = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            is_integer = false;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let fits = if is_integer {
            text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
        } else {
            text.parse::<f64>().is_ok_and(f64::is_finite)
        };
        if fits { Ok(()) } else { Err(Flaw::Number) }
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Flaw::Syntax) }
    }
}

/// Whether `serde_json` reads `text` as [`Json`] does: what is accepted, it accepts, with the same
/// members. Panics when not.
#[cfg(any(test, fuzzing))]
pub(super) fn compare_with_serde(text: &str) -> bool {
    let Ok(json) = Json::check(text) else { return false };
    let value: serde_json::Value =
        serde_json::from_str(text).expect("accepted here, refused there");
    compare(json, &value);
    true
}

#[cfg(any(test, fuzzing))]
fn compare(json: Json<'_>, value: &serde_json::Value) {
    use serde_json::Value;
    let kind = match value {
        Value::Array(_) => Kind::Array,
        Value::Bool(_) => Kind::Boolean,
        Value::Null => Kind::Null,
        Value::Number(_) => Kind::Number,
        Value::Object(_) => Kind::Object,
        Value::String(_) => Kind::String,
    };
    assert_eq!(json.kind(), kind);
    assert_eq!(json.string().as_deref(), value.as_str());
    assert!(json.integer().is_none_or(|integer| value.as_i64() == Some(integer)));
    let members = json.members();
    let expected = value.as_object().into_iter().flatten();
    assert_eq!(members.len(), expected.clone().count(), "a key came twice");
    for (member, (key, value)) in members.iter().zip(expected) {
        assert_eq!(member.key, *key);
        compare(member.value, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_parser_reads_alike_is_accepted() {
        for text in [
            "null",
            " [ ] ",
            "{}",
            "\t{\"a\" : [1, -2.5e-3, true, {\"b\": \"\\u00e9\\ud83d\\ude00\"}], \"b\":false}\r\n",
            "{\"a\":{\"a\":1},\"A\":2}",
            "[9223372036854775807,-9223372036854775808,18446744073709551615,0,-0,1e308,0.0]",
            "\"\u{2028}\u{7f}\"",
        ] {
            assert!(compare_with_serde(text), "{text}");
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(compare_with_serde(&nested(MAX_DEPTH)));
        assert_eq!(Json::check(&nested(MAX_DEPTH + 1)), Err(Flaw::Depth));
        assert_eq!(Json::check(&"[".repeat(1 << 20)), Err(Flaw::Depth));
        let list = |length: usize| format!("[{}1]", "1,".repeat(length - 1));
        assert!(compare_with_serde(&list(MAX_VALUES - 1)));
        assert_eq!(Json::check(&list(MAX_VALUES)), Err(Flaw::Values));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "nul",
            "nullx",
            "1 2",
            "{}{}",
            "{}x",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "--1",
            "NaN",
            "Infinity",
            "\"",
            "\"\\\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud83d\"",
            "\"\\ude00\\ud83d\"",
            "\"a\nb\"",
            "\"\u{0}\"",
            "\u{feff}{}",
            "//\n{}",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":}",
            "{,}",
            "]",
            "\u{a0}1",
        ] {
            assert_eq!(Json::check(text), Err(Flaw::Syntax), "{text}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_at_any_depth_and_however_it_is_spelled() {
        for text in [
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"b\":2,\"\\u0061\":3}",
            "[{\"b\":{\"a\":1,\"c\":{},\"a\":1}}]",
            "{\"\":1,\"\":2}",
        ] {
            assert_eq!(Json::check(text), Err(Flaw::Duplicate), "{text}");
        }
    }

    #[test]
    fn a_number_that_parsers_would_round_or_refuse_is_refused() {
        for text in ["1e999", "-1e999", "18446744073709551616", "-9223372036854775809"] {
            assert_eq!(Json::check(text), Err(Flaw::Number), "{text}");
        }
        assert_eq!(Json::check("17").unwrap().integer(), Some(17));
        for text in ["17.0", "1e1", "-0", "18446744073709551615", "\"17\"", "null"] {
            assert_eq!(Json::check(text).unwrap().integer(), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_is_refused_or_read_as_serde_json_does(
            text in "[\\[\\]{}:,\"\\\\ 0-9eE.+\\-atrufelsn]{0,24}"
        ) {
            compare_with_serde(&text);
        }

        #[test]
        fn what_serde_json_writes_is_accepted_unless_its_numbers_do_not_fit(
            keys in proptest::collection::btree_set(".{0,8}", 0..8), string in ".*",
            integer in proptest::num::i64::ANY, float in -1e300..1e300_f64,
        ) {
            let members = keys.into_iter().map(|key| (key, serde_json::json!([string, integer, float])));
            let text = serde_json::Value::Object(members.collect()).to_string();
            proptest::prop_assert!(compare_with_serde(&text));
        }
    }
}
