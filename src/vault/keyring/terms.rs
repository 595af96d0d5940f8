//! The keys of one tenant: one that seals, and those before it, which open what they sealed.

use std::sync::Arc;

use super::IdDigest;
use crate::vault::codec::Malformed;
use crate::vault::key::Key;
use crate::vault::{Error, Handle, Uuid};

/// The keys of one tenant.
#[derive(Clone, Debug)]
pub(in crate::vault) struct TenantKeys {
    pub(in crate::vault) uuid: Uuid,
    /// Where its records are.
    pub(in crate::vault) handle: Handle,
    /// Where they move to.
    pub(in crate::vault) next_handle: Option<Handle>,
    /// Whose they are; [`Self::NO_NAME`] of what belongs to no tenant.
    pub(super) name: IdDigest,
    pub(super) terms: Vec<Arc<Term>>,
}

/// A key and the number that its records carry.
#[derive(Debug)]
pub(in crate::vault) struct Term {
    pub(in crate::vault) number: u32,
    pub(in crate::vault) state: TermState,
    pub(in crate::vault) key: Arc<Key>,
}

/// What a term's key may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(in crate::vault) enum TermState {
    /// Seals and opens. Each tenant has exactly one.
    Active = 1,
    /// Opens what it sealed.
    Retained = 2,
    /// Nothing.
    Revoked = 3,
}

impl TenantKeys {
    pub(super) const NO_NAME: IdDigest = [0; _];

    /// Keys that nobody is named for yet.
    pub(in crate::vault) fn new(
        uuid: Uuid,
        handle: Handle,
        terms: Vec<Term>,
    ) -> Result<Self, Malformed> {
        let active = terms.iter().filter(|term| term.state == TermState::Active).count();
        let ascending = terms.is_sorted_by(|one, next| one.number < next.number);
        let terms = terms.into_iter().map(Arc::new).collect();
        let keys = Self { uuid, handle, next_handle: None, name: Self::NO_NAME, terms };
        if active == 1 && ascending { Ok(keys) } else { Err(Malformed) }
    }

    /// What their tenant is found by.
    pub(in crate::vault) fn name(&self) -> IdDigest {
        self.name
    }

    /// The term that seals.
    pub(in crate::vault) fn active(&self) -> &Term {
        let active = self.terms.iter().find(|term| term.state == TermState::Active);
        active.expect("checked when the value was made")
    }

    /// The term that opens what carries `number`.
    pub(in crate::vault) fn opening(&self, number: u32) -> Option<&Term> {
        let mut terms = self.terms.iter();
        let term = terms.find(|term| term.number == number && term.state != TermState::Revoked);
        term.map(Arc::as_ref)
    }

    /// Whether all its records are, or are to be, under the active term and at their last handle.
    pub(in crate::vault) fn is_settled(&self) -> bool {
        self.terms.len() == 1 && self.next_handle.is_none()
    }

    /// With another term that seals from now on.
    pub(super) fn with_new_term(&self) -> Result<Self, Error> {
        let last = self.terms.last().map_or(0, |term| term.number);
        let number = last.checked_add(1).ok_or(Error::KeyringDamaged)?;
        let mut terms: Vec<_> = self.terms.iter().map(Term::retained).collect();
        let key = Arc::new(Key::random()?);
        terms.push(Arc::new(Term { number, state: TermState::Active, key }));
        Ok(Self { terms, ..self.clone() })
    }

    /// With the term that seals and no other.
    pub(in crate::vault) fn with_active_term_only(&self) -> Self {
        let is_active = |term: &&Arc<Term>| term.state == TermState::Active;
        let terms = self.terms.iter().filter(is_active).cloned().collect();
        Self { terms, ..self.clone() }
    }

    /// At the handle that its records have moved to.
    pub(in crate::vault) fn moved(&self) -> Self {
        let handle = self.next_handle.unwrap_or(self.handle);
        Self { handle, next_handle: None, ..self.clone() }
    }

    /// How many keys destroying this would destroy.
    pub(in crate::vault) fn superseded(&self) -> u64 {
        self.terms.len() as u64 - 1
    }
}

impl Term {
    fn retained(self: &Arc<Self>) -> Arc<Self> {
        match self.state {
            TermState::Active => {
                let (number, key) = (self.number, Arc::clone(&self.key));
                Arc::new(Self { number, state: TermState::Retained, key })
            }
            TermState::Retained | TermState::Revoked => Arc::clone(self),
        }
    }
}
