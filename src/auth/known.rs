//! Tokens that were seen: their records, whom they were granted to, and when they were used.
//!
//! ```text
//! looked up --> records: until something is forgotten
//!          \--> living: while anything is that was granted for them, so that revoking a token
//!               reaches that also after its record was forgotten
//! used -----> uses: until they are saved
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use jiff::Timestamp;

use super::access::Life;
use crate::tenant::TenantId;
use crate::vault::{TokenPlace, TokenRecord};

/// Most tokens that are remembered between requests. At the limit all are forgotten and looked up
/// again, which costs each a few µs.
const MAX_RECORDS: usize = 10_000;

/// A token whose record was opened.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) place: TokenPlace,
    pub(super) record: TokenRecord,
    pub(super) life: Arc<Life>,
}

#[derive(Debug, Default)]
pub(super) struct KnownTokens {
    /// By hash of the token.
    records: HashMap<[u8; 32], Arc<Known>>,
    /// By public id.
    living: HashMap<String, (TenantId, Weak<Life>)>,
    /// How often something was to be forgotten. A record read before that is not remembered after.
    forgotten: u64,
    /// Last uses that are not saved yet.
    uses: HashMap<TokenPlace, Timestamp>,
}

impl KnownTokens {
    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<Arc<Known>> {
        self.records.get(hash).cloned()
    }

    /// To be taken before a record is looked up that [`Self::put`] is to remember.
    pub(super) fn moment(&self) -> u64 {
        self.forgotten
    }

    /// What was looked up at `moment`. Nothing, if it may have been revoked since then.
    pub(super) fn put(
        &mut self,
        moment: u64,
        hash: [u8; 32],
        (place, record): (TokenPlace, TokenRecord),
    ) -> Option<Arc<Known>> {
        if self.forgotten != moment {
            return None;
        }
        if self.records.len() >= MAX_RECORDS {
            self.records.clear();
            self.living.retain(|_, (_, life)| life.strong_count() > 0);
        }
        let living = self.living.get(&record.token_id).and_then(|(_, life)| life.upgrade());
        let life = living.unwrap_or_else(|| {
            let life = Arc::<Life>::default();
            let entry = (record.tenant.clone(), Arc::downgrade(&life));
            self.living.insert(record.token_id.clone(), entry);
            life
        });
        let known = Arc::new(Known { place, record, life });
        self.records.insert(hash, Arc::clone(&known));
        Some(known)
    }

    /// Has one looked up again the next time.
    pub(super) fn drop_record(&mut self, hash: &[u8; 32]) {
        self.records.remove(hash);
    }

    /// Ends what was granted for the tokens that `is_meant` says of, by public id and tenant, and has
    /// them looked up again.
    pub(super) fn end(&mut self, is_meant: impl Fn(&str, &TenantId) -> bool) {
        self.forgotten += 1;
        self.records.retain(|_, known| !is_meant(&known.record.token_id, &known.record.tenant));
        self.living.retain(|token_id, (tenant, life)| {
            let is_meant = is_meant(token_id, tenant);
            if is_meant && let Some(life) = life.upgrade() {
                life.ended.cancel();
            }
            !is_meant && life.strong_count() > 0
        });
    }

    pub(super) fn note_use(&mut self, known: &Known, now: Timestamp) {
        let at = self.uses.entry(known.place).or_insert(now);
        *at = now.max(*at);
    }

    /// When the token at `place` was last used, if that is not saved yet.
    pub(super) fn unsaved_use(&self, place: &TokenPlace) -> Option<Timestamp> {
        self.uses.get(place).copied()
    }

    /// What is to be saved now.
    pub(super) fn take_uses(&mut self) -> HashMap<TokenPlace, Timestamp> {
        std::mem::take(&mut self.uses)
    }

    /// What could not be saved.
    pub(super) fn put_back(&mut self, uses: HashMap<TokenPlace, Timestamp>) {
        for (place, use_) in uses {
            self.uses.entry(place).or_insert(use_);
        }
    }
}
