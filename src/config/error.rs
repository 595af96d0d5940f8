//! What is wrong with a setting, by the name that it has where it was set.

use std::path::Path;

use figment::Figment;
use figment::error::Kind;

/// At most so many edits away is what was meant.
const MAX_DISTANCE: usize = 3;

/// A setting that is unknown or has a wrong value.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {message}")]
#[non_exhaustive]
pub struct Error {
    /// The setting and where it was set.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl From<crate::auth::Invalid> for Error {
    fn from(invalid: crate::auth::Invalid) -> Self {
        Self { place: invalid.place, message: invalid.message }
    }
}

impl Error {
    /// What `error` says of `sources`, of which one is `file`.
    pub(super) fn reading(sources: &Figment, file: &Path, error: &figment::Error) -> Self {
        let key = error.path.join(".");
        if let Kind::UnknownField(name, known) = &error.kind {
            let nearest = known.iter().map(|it| (strsim::damerau_levenshtein(it, name), it)).min();
            let meant = nearest.filter(|(distance, _)| *distance <= MAX_DISTANCE).map(|(_, it)| {
                let meant = key.rsplit_once('.').map(|(section, _)| format!("{section}.{it}"));
                let meant = meant.unwrap_or_else(|| (*it).to_owned());
                if is_variable(sources, &key) { variable(&meant) } else { meant }
            });
            let message = match meant {
                Some(meant) => format!("unknown setting; did you mean {meant}?"),
                None => "unknown setting".to_owned(),
            };
            return Self { place: key, message }.placed(sources, file);
        }
        let message = if let Kind::UnknownVariant(given, known) = &error.kind {
            format!("is {given}, and may be {}", known.join(", "))
        } else {
            without_excerpt(&error.kind.to_string())
        };
        // Only a file can be wrong as a whole.
        if key.is_empty() {
            return Self { place: file.display().to_string(), message };
        }
        Self { place: key, message }.placed(sources, file)
    }

    /// The same, with the setting as it is called where it was set.
    pub(super) fn placed(self, sources: &Figment, file: &Path) -> Self {
        let place = match sources.find_metadata(&self.place) {
            None => self.place,
            Some(_) if is_variable(sources, &self.place) => variable(&self.place),
            Some(_) => format!("{}: {}", file.display(), self.place),
        };
        Self { place, ..self }
    }
}

fn is_variable(sources: &Figment, key: &str) -> bool {
    let metadata = sources.find_metadata(key);
    metadata.is_some_and(|it| it.source.as_ref().and_then(|source| source.file_path()).is_none())
}

/// What the environment calls setting `key`.
fn variable(key: &str) -> String {
    format!("TENANTRY_{}", key.to_uppercase().replace('.', "__"))
}

/// A parser's message in one line, without the lines of the file that it shows.
fn without_excerpt(message: &str) -> String {
    let is_excerpt = |line: &str| {
        line.split_once('|').is_some_and(|(number, _)| {
            number.trim().chars().all(|character| character.is_ascii_digit())
        })
    };
    let lines: Vec<&str> = message.lines().filter(|line| !is_excerpt(line)).collect();
    lines.join(": ").trim_start_matches("TOML parse error at ").to_owned()
}
