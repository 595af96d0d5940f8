//! Rotation of tenant keys: a new term first, then every record under it, then the old term goes.
//!
//! ```text
//! rotate: keyring gets a new active term ──► reseal: records, some at a time ──► proof ──► old term
//!         (old one retained, opens)           one batch each, readers go on      0 left     destroyed
//! ```
//!
//! A record says in the clear under which term it is, so the store itself knows how far the work
//! is: after a kill it goes on with what is left. When the root key is rotated with everything
//! below it, records also move to other handles; a tenant moves as a whole, in one batch.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::backup;
use super::envelope::{self, RecordKind};
use super::keyring::{BackupSlot, Keyring, TenantKeys};
use super::operator;
use super::record::FieldId;
use super::sealed::{self, SealedStore};
use super::unsealed::{Unsealed, Writing};
use super::{Entry, Error, Handle, TenantCredentialVault};
use crate::store::{Batch, Pair, Tree};
use crate::tenant::TenantId;

/// How far records are sealed under their newest keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ResealProgress {
    /// Records of the tenants whose keys were rotated.
    pub total: u64,
    /// Of these, the ones that are not yet known to be under the newest key.
    pub remaining: u64,
    /// Old keys that were proven unused and destroyed, by this call.
    pub destroyed: u64,
    /// Tenants with a record that does not open. Their old keys stay.
    pub damaged_tenants: u64,
}

impl ResealProgress {
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.remaining == 0
    }
}

/// How many records the proof looks at in one go.
const PAGE: usize = 256;

/// What is left to do.
#[derive(Default)]
pub(super) struct Queue {
    /// Where tenants are, and how many records each has.
    waiting: VecDeque<(Handle, u64)>,
    tokens: Tokens,
    /// Whose records are all under the active term, but nobody has looked yet: where they are, and
    /// where they were.
    unproven: HashMap<Handle, Handle>,
    damaged: HashSet<Handle>,
    /// Whether a token does not open. The old keys of the tokens stay.
    is_token_damaged: bool,
    /// Records in `waiting`, and those that were there.
    remaining: u64,
    total: u64,
}

/// How far the tokens are.
#[derive(Default)]
enum Tokens {
    #[default]
    Settled,
    /// Those after this store key are left.
    After(Option<Vec<u8>>),
    Unproven,
}

impl Queue {
    /// What a rotation left to do. Opens the directories of the tenants that it concerns.
    pub(super) fn of(
        records: &SealedStore,
        keyring: &Keyring,
        damaged: HashSet<Handle>,
    ) -> Result<Self, Error> {
        let mut queue = Self { damaged, ..Self::default() };
        // In the store's order, so that each batch reads pages that are next to each other.
        for keys in keyring.tenants().filter(|keys| !keys.is_settled()) {
            if queue.damaged.contains(&keys.handle) {
                continue;
            }
            match records.entry(keys) {
                Ok(Some(entry)) => queue.add(&entry),
                // Of an import that failed; there are no records to look after.
                Ok(None) => drop(queue.unproven.insert(keys.handle, keys.handle)),
                Err(error @ Error::RecordDamaged { .. }) => queue.damage(keys.handle, &error),
                Err(error) => return Err(error),
            }
        }
        if !keyring.system().is_settled() {
            queue.tokens = Tokens::After(None);
        }
        Ok(queue)
    }

    fn add(&mut self, entry: &Entry) {
        let records = entry.directory.records().count() as u64;
        self.remaining += records;
        self.total += records;
        self.waiting.push_back((entry.keys.handle, records));
    }

    fn damage(&mut self, handle: Handle, error: &Error) {
        tracing::error!(error.code = %error.code(), %error, "a tenant was not re-sealed");
        self.damaged.insert(handle);
    }

    /// Counts `records` as done.
    fn take_off(&mut self, records: u64) {
        self.remaining = self.remaining.saturating_sub(records);
    }

    /// Takes the tenant at `handle` from those that wait.
    fn remove(&mut self, handle: Handle) {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == handle)
            && let Some((_, records)) = self.waiting.remove(at)
        {
            self.take_off(records);
        }
    }

    fn progress(&self, destroyed: u64) -> ResealProgress {
        let is_token_left = !matches!(self.tokens, Tokens::Settled);
        let unproven = u64::from(!self.unproven.is_empty() || is_token_left);
        let remaining = self.remaining.max(unproven);
        ResealProgress {
            total: (self.total + u64::from(is_token_left)).max(remaining),
            remaining,
            destroyed,
            damaged_tenants: self.damaged.len() as u64,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.waiting.is_empty() && !matches!(self.tokens, Tokens::After(_))
    }
}

impl TenantCredentialVault {
    /// Gives a tenant a new key, and answers its term. What is written from now on is under it; the
    /// rest follows with [`Self::reseal`]. One file is written, and no record.
    ///
    /// # Errors
    ///
    /// [`Error::NotConfigured`], [`Error::TenantSealed`], [`Error::Sealed`], [`Error::Store`].
    pub fn rotate_tenant_key(&self, id: &TenantId) -> Result<u32, Error> {
        self.changing(|vault| vault.rotate_tenant_key(id))
    }

    /// Seals about `at_most` more records under their tenants' newest keys; once there are none
    /// left, proves that no record is under an old one, and destroys the old ones.
    ///
    /// One durable batch, during which writes wait and reads go on: some 50 ms for a thousand
    /// (`./dev bench --bench vault`).
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`]. What was done is done, and the next call goes on.
    pub fn reseal(&self, at_most: usize) -> Result<ResealProgress, Error> {
        self.changing(|vault| vault.reseal(at_most))
    }

    /// How far [`Self::reseal`] is.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`].
    pub fn reseal_progress(&self) -> Result<ResealProgress, Error> {
        self.unsealed(|vault| Ok(vault.writing().queue.progress(0)))
    }
}

impl Unsealed {
    /// Refuses what [`Self::begin_reseal`] could not do.
    pub(super) fn check_reseal(&self) -> Result<(), Error> {
        let keyring = self.keyring();
        if keyring.is_moving() {
            return Err(Error::Resealing);
        }
        match keyring.sealed().next() {
            Some(sealed) => Err(Error::TenantSealed(sealed.id.clone())),
            None => Ok(()),
        }
    }

    fn rotate_tenant_key(&self, id: &TenantId) -> Result<u32, Error> {
        let mut writing = self.writing();
        let entry = self.current(&writing, id)?;
        let keys =
            self.change_keyring(&mut writing, |keyring| keyring.add_term(entry.keys.handle))?;
        let term = keys.active().number;
        writing.queue.unproven.remove(&keys.handle);
        if !writing.queue.waiting.iter().any(|(waiting, _)| *waiting == keys.handle) {
            writing.queue.add(&entry);
        }
        self.changed([id]);
        Ok(term)
    }

    /// Gives everybody a new key and another handle, and backups the slot `backup`. Opens every
    /// directory, writes the keyring, and no record. A tenant whose directory does not open stays
    /// as it is.
    pub(super) fn begin_reseal(
        &self,
        writing: &mut Writing,
        backup: Option<BackupSlot>,
    ) -> Result<(), Error> {
        let mut queue = Queue::default();
        let mut tenants: Vec<(Handle, TenantId)> = Vec::new();
        for keys in self.keyring().tenants() {
            match self.records.entry(keys) {
                Ok(entry) => {
                    tenants.extend(entry.map(|entry| (keys.handle, entry.directory.id.clone())));
                }
                Err(error @ Error::RecordDamaged { .. }) => queue.damage(keys.handle, &error),
                Err(error) => return Err(error),
            }
        }
        self.change_keyring(writing, |keyring| {
            keyring.begin_moving(tenants.iter().cloned())?;
            for (handle, _) in &tenants {
                keyring.add_term(*handle)?;
            }
            keyring.set_backup(backup);
            keyring.add_term(Handle::SYSTEM)
        })?;
        self.all_changed();
        writing.queue = Queue::of(&self.records, &self.keyring(), queue.damaged)?;
        Ok(())
    }

    fn reseal(&self, at_most: usize) -> Result<ResealProgress, Error> {
        let mut writing = self.writing();
        let before = writing.queue.progress(0);
        if before.is_done() {
            return Ok(before);
        }
        let destroyed = self.reseal_some(&mut writing, at_most.max(1));
        if destroyed.is_err() {
            // What was taken from it is found again.
            self.requeue(&mut writing)?;
        }
        Ok(writing.queue.progress(destroyed?))
    }

    /// One batch, and after the last one the proof. Answers how many old terms it destroyed.
    fn reseal_some(&self, writing: &mut Writing, at_most: usize) -> Result<u64, Error> {
        let mut batch = Batch::default();
        let mut taken = Vec::new();
        let mut count = 0;
        while count < at_most {
            let Some((handle, listed)) = writing.queue.waiting.pop_front() else { break };
            let Some(keys) = self.keyring().get(handle).map(Arc::clone) else { continue };
            let moved = keys.moved();
            // By itself: of a tenant that cannot move as a whole, nothing moves.
            let mut own = Batch::default();
            let resealed = match self.records.entry(&keys) {
                Ok(Some(entry)) => {
                    let records = self.reseal_tenant(&mut own, &entry, &moved);
                    records.map(|records| (entry, records))
                }
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match resealed {
                Ok((entry, records)) => {
                    batch.append(own);
                    count += records;
                    taken.push((entry, moved, listed));
                }
                Err(error @ Error::RecordDamaged { .. }) => {
                    writing.queue.take_off(listed);
                    writing.queue.damage(handle, &error);
                }
                Err(error) => return Err(error),
            }
        }
        let tokens = match &writing.queue.tokens {
            Tokens::After(after) if count < at_most => {
                let (after, is_damaged) =
                    self.reseal_tokens(&mut batch, after.clone(), at_most - count)?;
                writing.queue.is_token_damaged |= is_damaged;
                after.map_or(Some(Tokens::Unproven), |key| Some(Tokens::After(Some(key))))
            }
            Tokens::After(_) | Tokens::Settled | Tokens::Unproven => None,
        };
        self.witness.apply(batch)?;
        let mut ids = Vec::with_capacity(taken.len());
        for (entry, moved, listed) in taken {
            writing.queue.take_off(listed);
            let former = entry.keys.handle;
            let keys = self.keyring_mut(writing).replace(former, moved);
            writing.queue.unproven.insert(keys.handle, former);
            ids.push(entry.directory.id.clone());
        }
        self.changed(&ids);
        if let Some(tokens) = tokens {
            writing.queue.tokens = tokens;
        }
        if writing.queue.is_exhausted() { self.destroy_old_terms(writing) } else { Ok(0) }
    }

    /// Seals what is not yet under the active term, and moves what is not yet there. Answers how
    /// many records that was.
    fn reseal_tenant(
        &self,
        batch: &mut Batch,
        entry: &Entry,
        moved: &TenantKeys,
    ) -> Result<usize, Error> {
        let mut count = 0;
        let counts = (RecordKind::Counts, FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
        let counts = self.records.counts_envelope(&entry.keys)?.map(|_| counts);
        for (kind, field, version) in entry.directory.records().chain(counts) {
            let envelope = self.records.envelope(&entry.keys, kind, field, version)?;
            let is_active = envelope::term(&envelope) == Some(entry.keys.active().number);
            if is_active && moved.handle == entry.keys.handle {
                continue;
            }
            let opened = self.records.open(&entry.keys, kind, (field, version), &envelope)?;
            self.records.put(batch, moved, kind, (field, version), &opened)?;
            if moved.handle != entry.keys.handle {
                sealed::remove(batch, &entry.keys, (field, version));
            }
            count += 1;
        }
        Ok(count)
    }

    /// The records of the known backups, and the one of operators' tokens.
    fn system_records(&self) -> Result<Vec<Pair>, Error> {
        let store = self.records.store();
        let mut records = store.scan(Tree::Meta, backup::RECORD_PREFIX)?;
        let operators = store.get(Tree::Meta, operator::KEY)?;
        records.extend(operators.map(|envelope| (operator::KEY.to_vec(), envelope)));
        Ok(records)
    }

    /// Seals those records anew. Answers whether one of them does not open.
    fn reseal_system_records(&self, batch: &mut Batch, system: &TenantKeys) -> Result<bool, Error> {
        let mut is_damaged = false;
        for (key, envelope) in self.system_records()? {
            if envelope::term(&envelope) == Some(system.active().number) {
                continue;
            }
            let place = match &*key {
                operator::KEY => operator::place(&self.records),
                key => backup::place(&self.records, key),
            };
            match envelope::open(system, &place, &envelope) {
                Ok(opened) => {
                    let sealed = envelope::seal(system, &place, &opened)?;
                    batch.put(Tree::Meta, key, sealed);
                }
                Err(error) => {
                    tracing::error!(error.code = %error.code(), %error, "a record was not re-sealed");
                    is_damaged = true;
                }
            }
        }
        Ok(is_damaged)
    }

    /// Seals up to `limit` tokens after `after` anew, and known backups first. Answers the key of the last one, or none when
    /// there are no more, and whether one of them does not open, which is left as it is.
    fn reseal_tokens(
        &self,
        batch: &mut Batch,
        mut after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(Option<Vec<u8>>, bool), Error> {
        let mut is_damaged = false;
        let system = self.system();
        if after.is_none() {
            is_damaged |= self.reseal_system_records(batch, &system)?;
        }
        let mut count = 0;
        while count < limit {
            let page = limit - count;
            let pairs = self.records.store().scan_after(Tree::Token, after.as_deref(), page)?;
            let Some((last, _)) = pairs.last() else { return Ok((None, is_damaged)) };
            after = Some(last.clone());
            for (key, envelope) in &pairs {
                if envelope::term(envelope) != Some(system.active().number) {
                    let place = self.token_place(key);
                    let opened = match envelope::open(&system, &place, envelope) {
                        Ok(opened) => opened,
                        Err(error) => {
                            tracing::error!(error.code = %error.code(), %error, "a token was not re-sealed");
                            is_damaged = true;
                            continue;
                        }
                    };
                    let sealed = envelope::seal(&system, &place, &opened)?;
                    batch.put(Tree::Token, key.as_slice(), sealed);
                    count += 1;
                }
            }
        }
        Ok((after, is_damaged))
    }

    /// Looks at every record whose tenant's key was rotated. Those under which there is none any
    /// more are destroyed; how many that were.
    fn destroy_old_terms(&self, writing: &mut Writing) -> Result<u64, Error> {
        let mut places = BTreeMap::new();
        for (handle, former) in &writing.queue.unproven {
            let keyring = self.keyring();
            let Some(keys) = keyring.get(*handle) else { continue };
            places.insert(*former, None);
            places.insert(*handle, Some(keys.active().number));
        }
        let outdated = self.outdated(&places)?;
        let is_proven = |(handle, former): &(&Handle, &Handle)| {
            !outdated.contains(handle) && !outdated.contains(former)
        };
        let proven = writing.queue.unproven.iter().filter(is_proven);
        let mut settled: Vec<Arc<TenantKeys>> =
            proven.filter_map(|(handle, _)| self.keyring().get(*handle).map(Arc::clone)).collect();
        let system = self.system();
        if matches!(writing.queue.tokens, Tokens::Unproven) && self.count_tokens(&system)? == 0 {
            settled.push(system);
        }
        let mut destroyed = 0;
        if !settled.is_empty() {
            self.change_keyring(writing, |keyring| {
                for keys in &settled {
                    destroyed += keys.superseded();
                    keyring.replace(keys.handle, keys.moved().with_active_term_only());
                }
                if !keyring.is_moving() {
                    keyring.end_moving();
                }
                Ok(())
            })?;
            self.all_changed();
        }
        writing.queue.unproven.clear();
        let total = writing.queue.total;
        // Whoever is not settled by now is found again.
        self.requeue(writing)?;
        writing.queue.total = total;
        if writing.queue.is_token_damaged {
            // Nothing more can be done about them.
            writing.queue.tokens = Tokens::Settled;
        }
        Ok(destroyed)
    }

    /// Those of `places` at which there is a record under another term than the one that is given,
    /// or any at all where none is.
    fn outdated(&self, places: &BTreeMap<Handle, Option<u32>>) -> Result<HashSet<Handle>, Error> {
        let mut outdated = HashSet::new();
        let mut next = places.first_key_value().map(|(handle, _)| handle.0.to_vec());
        while let Some(after) = next {
            let pairs = self.records.store().scan_after(Tree::Tenant, Some(&after), PAGE)?;
            let mut last = None;
            for (key, envelope) in pairs {
                let Some(handle) = key.first_chunk().map(|handle| Handle(*handle)) else {
                    continue;
                };
                let expected = places.get(&handle);
                if expected.is_some_and(|term| term.is_none() || envelope::term(&envelope) != *term)
                {
                    outdated.insert(handle);
                }
                last = Some((handle, key));
            }
            // On from there, over what is not asked for.
            next = last.and_then(|(handle, key)| match places.range(handle..).next() {
                Some((next, _)) if *next == handle => Some(key),
                following => following.map(|(next, _)| next.0.to_vec()),
            });
        }
        Ok(outdated)
    }

    /// How many tokens, known backups and the like are under an old term.
    fn count_tokens(&self, system: &TenantKeys) -> Result<usize, Error> {
        let active = Some(system.active().number);
        let others = self.system_records()?;
        let mut count = others.iter().filter(|(_, it)| envelope::term(it) != active).count();
        let mut after = None::<Vec<u8>>;
        loop {
            let pairs = self.records.store().scan_after(Tree::Token, after.as_deref(), 1_024)?;
            let Some((last, _)) = pairs.last() else { return Ok(count) };
            count += pairs.iter().filter(|(_, token)| envelope::term(token) != active).count();
            after = Some(last.clone());
        }
    }

    /// Finds what is left to do anew.
    pub(super) fn requeue(&self, writing: &mut Writing) -> Result<(), Error> {
        let mut damaged = writing.queue.damaged.clone();
        damaged.retain(|handle| self.keyring().get(*handle).is_some());
        let queue = Queue::of(&self.records, &self.keyring(), damaged)?;
        let Queue { unproven, is_token_damaged, .. } = std::mem::replace(&mut writing.queue, queue);
        writing.queue.unproven.extend(unproven);
        writing.queue.is_token_damaged = is_token_damaged;
        Ok(())
    }

    /// Moves one tenant at once, for whoever cannot wait until it is its turn.
    pub(super) fn reseal_now(&self, writing: &mut Writing, id: &TenantId) -> Result<(), Error> {
        let entry = self.current(writing, id)?;
        if entry.keys.is_settled() {
            return Ok(());
        }
        let moved = entry.keys.moved();
        let mut batch = Batch::default();
        self.reseal_tenant(&mut batch, &entry, &moved)?;
        self.witness.apply(batch)?;
        let former = entry.keys.handle;
        self.keyring_mut(writing).replace(former, moved);
        writing.queue.remove(former);
        self.changed([id]);
        Ok(())
    }
}
