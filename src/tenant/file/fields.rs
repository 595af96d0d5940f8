//! The fields of a tenant file, one at a time: each is read, resolved and checked, or a problem is
//! noted and reading goes on.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;
use serde_json::value::RawValue;

use super::{MAX_NAME, MAX_RELATIONS, MAX_SECRET, Problem, Surroundings, section_fields};
use crate::memory::SecretText;
use crate::tenant::env;
use crate::tenant::json::{self, Member, Position};

/// Reads one file and collects what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) source: &'a str,
    pub(super) surroundings: &'a Surroundings<'a>,
    pub(super) problems: Vec<Problem>,
    /// Fields whose secrets stand in the file itself.
    pub(super) literals: Vec<String>,
}

/// An object of the file, its unknown and doubled fields already reported.
pub(super) struct Object<'a> {
    path: String,
    pub(super) value: &'a str,
    pub(super) members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    pub(super) fn field(&self, name: &str) -> Field {
        let separator = if self.path.is_empty() { "" } else { "." };
        Field(format!("{}{separator}{name}", self.path))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|member| member.key == name).map(|member| member.value)
    }
}

/// A field's full name, for messages.
pub(super) struct Field(pub(super) String);

impl<'a> Reader<'a> {
    /// Opens the object in `name`, with any fields.
    pub(super) fn open_section(&mut self, top: &Object<'a>, name: &str) -> Option<Object<'a>> {
        let value = top.get(name)?;
        self.object(name.to_owned(), value.get(), &[])
    }

    /// Opens the object in `name`, with the fields that [`section_fields`] lists, and reads it.
    pub(super) fn section<T>(
        &mut self,
        top: &Object<'a>,
        name: &str,
        read: impl FnOnce(&mut Self, &Object<'a>) -> T,
    ) -> Option<T> {
        let value = top.get(name)?;
        let section = self.object(name.to_owned(), value.get(), section_fields(name))?;
        Some(read(self, &section))
    }

    /// The object that `text` is. `known` empty means any field.
    pub(super) fn object(
        &mut self,
        path: String,
        text: &'a str,
        known: &[&str],
    ) -> Option<Object<'a>> {
        let field = Field(path);
        match json::members(text) {
            Ok(Some(members)) => {
                let object = Object { path: field.0, value: text, members };
                self.check_names(&object, known);
                Some(object)
            }
            Ok(None) => {
                self.problem(&field, text, "must be an object");
                None
            }
            Err((Position { line, column }, ends_early)) => {
                let message = if ends_early {
                    "not JSON: the text ends too early; is the file truncated?"
                } else {
                    "not JSON"
                };
                let message = message.to_owned();
                self.problems.push(Problem { field: field.0, line, column, message });
                None
            }
        }
    }

    fn check_names(&mut self, object: &Object<'a>, known: &[&str]) {
        let mut seen = BTreeSet::new();
        for member in &object.members {
            let key = printable(&member.key);
            if !seen.insert(&member.key) {
                self.problem(&object.field(&key), member.value.get(), "is there twice");
            } else if !known.is_empty() && !known.contains(&&*member.key) {
                let nearest = known
                    .iter()
                    .map(|known| (strsim::damerau_levenshtein(known, &member.key), known))
                    .min();
                let message = match nearest {
                    Some((distance, name)) if distance <= 3 => {
                        format!("unknown field; did you mean \"{name}\"?")
                    }
                    _ => "unknown field".to_owned(),
                };
                self.problem(&object.field(&key), member.value.get(), message);
            }
        }
    }

    /// The string in `name` with its references resolved; nothing when it is absent or not good.
    fn text(&mut self, object: &Object<'a>, name: &str) -> Option<SecretText> {
        let value = object.get(name)?;
        self.resolve(&object.field(name), value)
    }

    /// The string that `value` is with its references resolved; nothing when it is not good. Of
    /// every field as if it were a secret: what it is, may be a slip of who wrote the file.
    fn resolve(&mut self, field: &Field, value: &'a RawValue) -> Option<SecretText> {
        let Some(template) = json::string(value) else {
            self.problem(field, value.get(), "must be a string");
            return None;
        };
        env::resolve(template.as_str(), self.surroundings.lookup)
            .map_err(|error| self.problem(field, value.get(), error.to_string()))
            .ok()
    }

    pub(super) fn required_text(&mut self, object: &Object<'a>, name: &str) -> Option<String> {
        let Some(value) = object.get(name) else {
            self.problem(&object.field(name), object.value, "is required");
            return None;
        };
        let text = self.text(object, name)?;
        if text.is_empty() {
            self.problem(&object.field(name), value.get(), "must not be empty");
            return None;
        }
        Some(exposed(&text).to_owned())
    }

    pub(super) fn required_name(&mut self, object: &Object<'a>, name: &str) -> Option<String> {
        let text = self.required_text(object, name)?;
        if text.len() > MAX_NAME || text.contains(char::is_control) {
            let message = format!("must have at most {MAX_NAME} printable bytes");
            self.problem(&object.field(name), object.get(name)?.get(), message);
            return None;
        }
        Some(text)
    }

    /// A secret; one that is absent or empty is none.
    pub(super) fn optional_secret(
        &mut self,
        object: &Object<'a>,
        name: &str,
    ) -> Option<SecretText> {
        let text = self.text(object, name)?;
        let value = object.get(name)?;
        if text.is_empty() {
            return None;
        }
        if text.length() > MAX_SECRET || exposed(&text).contains('\0') {
            let message = format!("must have at most {MAX_SECRET} bytes, none of them zero");
            self.problem(&object.field(name), value.get(), message);
            return None;
        }
        if json::string(value).is_some_and(|template| env::is_literal(template.as_str())) {
            self.literals.push(object.field(name).0);
        }
        Some(text)
    }

    pub(super) fn integer(
        &mut self,
        object: &Object<'a>,
        name: &str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let value = object.get(name)?;
        // JSON's whole numbers without a sign. The parser's error would quote what is there instead.
        let digits = value.get();
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse());
        match number {
            Some(Ok(number)) if (min..=max).contains(&number) => Some(number),
            _ => {
                let message = if max == u64::MAX {
                    "must be a whole number, 0 or more".to_owned()
                } else {
                    format!("must be a whole number from {min} to {max}")
                };
                self.problem(&object.field(name), value.get(), message);
                None
            }
        }
    }

    /// One of `choices`: nothing when absent, `Some(None)` when there and not among them.
    #[expect(clippy::option_option, reason = "absent and wrong lead to different defaults")]
    pub(super) fn choice<T: Copy>(
        &mut self,
        object: &Object<'a>,
        name: &str,
        choices: &[(&str, T)],
    ) -> Option<Option<T>> {
        let value = object.get(name)?;
        let text = self.text(object, name);
        let found = choices
            .iter()
            .find(|(spelling, _)| text.as_ref().is_some_and(|text| exposed(text) == *spelling));
        if found.is_none() && text.is_some() {
            let names: Vec<&str> = choices.iter().map(|(spelling, _)| *spelling).collect();
            let message = format!("must be one of {}", names.join(", "));
            self.problem(&object.field(name), value.get(), message);
        }
        Some(found.map(|(_, choice)| *choice))
    }

    /// A list of dotted names, each made into a `T` from its parts.
    pub(super) fn list<T>(
        &mut self,
        object: &Object<'a>,
        name: &str,
        form: &str,
        parse: impl Fn(&[&str]) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = object.get(name)?;
        let is_list = value.get().starts_with('[');
        let items = is_list.then(|| serde_json::from_str::<Vec<&RawValue>>(value.get()));
        let Some(Ok(items)) = items else {
            self.problem(&object.field(name), value.get(), format!("must be a list of {form}"));
            return None;
        };
        if items.len() > MAX_RELATIONS {
            let message = format!("at most {MAX_RELATIONS} entries");
            self.problem(&object.field(name), value.get(), message);
            return None;
        }
        let mut list = Vec::new();
        for item in items {
            let Some(text) = self.resolve(&object.field(name), item) else { continue };
            let parts: Vec<&str> = exposed(&text).split('.').collect();
            let is_name = |part: &&str| {
                (1..=MAX_NAME).contains(&part.len()) && !part.contains(char::is_control)
            };
            match parse(&parts) {
                Some(entry) if parts.iter().all(is_name) => list.push(entry),
                _ => self.problem(&object.field(name), item.get(), format!("must be {form}")),
            }
        }
        Some(list)
    }

    /// Reports a problem at `part`, a slice of the source.
    pub(super) fn problem(&mut self, field: &Field, part: &str, message: impl Into<String>) {
        let Position { line, column } = json::position(self.source, part);
        self.problems.push(Problem {
            field: field.0.clone(),
            line,
            column,
            message: message.into(),
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "checked, or of a field that is none")]
pub(super) fn exposed(text: &SecretText) -> &str {
    text.expose_secret()
}

/// A key as it may stand in a message: one line, not long.
pub(super) fn printable(key: &str) -> String {
    key.escape_debug().take(MAX_NAME).collect()
}
