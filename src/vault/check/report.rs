//! What a check found, part by part.

use std::fmt;

use crate::tenant::TenantId;

/// Most findings of a part that are kept; the rest is counted.
const MAX_FINDINGS: usize = 1_000;

/// Something that is checked by itself: damage to one does not keep the others from being checked,
/// unless they cannot be opened without it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Part {
    /// The header file: its MAC, which covers every slot.
    Header,
    /// The keyring file.
    Keyring,
    /// The file that remembers the newest commit.
    Anchor,
    /// The journal: every segment and frame.
    Journal,
    /// The engine: its pairs, counted and compared with what the commits made.
    Manifest,
    /// Every record of every tenant.
    Records,
    /// Every client token.
    Tokens,
    /// The backups that are known.
    Backups,
    /// The audit log.
    Audit,
}

/// How a part, or everything, is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "scripts match on them")]
pub enum Verdict {
    /// As it was written.
    Good,
    /// It was not, and is now.
    Repaired,
    /// It cannot be told: what it is checked with is damaged, or the check was ended.
    Unchecked,
    /// Not as it was written.
    Damaged,
}

/// Something that is amiss, or was.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// What, in one sentence without its full stop. No secret is in it.
    pub message: String,
    /// Whose, where that is known.
    pub tenant: Option<TenantId>,
    /// What is to be done about it; nothing about what was repaired.
    pub way_out: Option<&'static str>,
}

/// What was found of one part.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartReport {
    /// Which.
    pub part: Part,
    /// How it is.
    pub verdict: Verdict,
    /// How many of its pieces were looked at: slots, keys, frames, pairs, records, entries.
    pub checked: u64,
    /// What is amiss. At most 1,000.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub omitted: u64,
}

/// What was found, in the order of [`Part`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Each part once.
    pub parts: Vec<PartReport>,
}

impl Part {
    /// The name, for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Keyring => "keyring",
            Self::Anchor => "anchor",
            Self::Journal => "journal",
            Self::Manifest => "manifest",
            Self::Records => "records",
            Self::Tokens => "tokens",
            Self::Backups => "backups",
            Self::Audit => "audit",
        }
    }
}

impl Verdict {
    /// The name, for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Repaired => "repaired",
            Self::Unchecked => "unchecked",
            Self::Damaged => "damaged",
        }
    }
}

impl Finding {
    /// Something that is amiss.
    pub fn new(message: impl Into<String>, way_out: &'static str) -> Self {
        Self { message: message.into(), tenant: None, way_out: Some(way_out) }
    }

    pub(super) fn of(mut self, tenant: Option<&TenantId>) -> Self {
        self.tenant = tenant.cloned();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tenant) = &self.tenant {
            write!(f, "{tenant}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl PartReport {
    /// A part of which nothing was looked at yet, and nothing is amiss.
    pub fn new(part: Part) -> Self {
        Self { part, verdict: Verdict::Good, checked: 0, findings: Vec::new(), omitted: 0 }
    }

    /// A part that could not be looked at, and why.
    pub fn unchecked(part: Part, reason: impl Into<String>) -> Self {
        let finding = Finding { message: reason.into(), tenant: None, way_out: None };
        Self { verdict: Verdict::Unchecked, findings: vec![finding], ..Self::new(part) }
    }

    /// Notes something that is amiss.
    pub fn damaged(&mut self, finding: Finding) {
        self.verdict = Verdict::Damaged;
        self.add(finding);
    }

    /// Notes something that was amiss, and was mended.
    pub fn repaired(&mut self, message: impl Into<String>) {
        self.verdict = self.verdict.max(Verdict::Repaired);
        self.add(Finding { message: message.into(), tenant: None, way_out: None });
    }

    /// Notes something that somebody should know, and that is no damage.
    pub fn note(&mut self, finding: Finding) {
        self.add(finding);
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.omitted += 1;
        }
    }
}

impl Report {
    /// The worst verdict of all parts. What could not be checked is not good.
    pub fn verdict(&self) -> Verdict {
        let worst = self.parts.iter().map(|part| part.verdict).max();
        worst.unwrap_or(Verdict::Unchecked)
    }

    /// How many pieces were looked at.
    pub fn checked(&self) -> u64 {
        self.parts.iter().map(|part| part.checked).sum()
    }

    /// What was found of `part`.
    pub fn part(&self, part: Part) -> Option<&PartReport> {
        self.parts.iter().find(|report| report.part == part)
    }

    /// Adds what was found of a part, which was not there yet.
    pub fn push(&mut self, report: PartReport) {
        self.parts.push(report);
        self.parts.sort_by_key(|report| report.part);
    }
}
