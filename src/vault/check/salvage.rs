//! Rescuing what still opens into a new data directory.
//!
//! ```text
//! keyring --each tenant--> newest directory that opens in any remnant --> its fields, from any remnant
//!                            config lost: the tenant is        field lost: the directory
//!                            not taken                         is written without it
//! ```
//!
//! A remnant is what one part of the damaged store still gives (journal, engine), the newest first.
//! Every record is taken as it is, under the key that it is sealed under: header and keyring are
//! copied. The old directory is only read.
//!
//! Protects against: taking a record that is not what was written, where it was written. Does not
//! protect against: a record that is older than it should be, where the newest is lost; the report
//! says which commits are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::certificate::hex;
use super::super::envelope::RecordKind;
use super::super::keyring::{Keyring, TenantKeys};
use super::super::record::{Directory, Field, FieldId};
use super::super::sealed::SealedStore;
use super::super::slot::Unlock;
use super::super::{Error, Handle, TenantCredentialVault, backup, operator, token, witness};
use super::closed::{OpenedKeys, Remains};
use super::records::{self, CONFIG, COUNTS, Examined, Owner};
use super::{CheckProgress, Watch};
use crate::store::{Batch, DataDir, Options, Pair, Remnant, Scratch, SledStore, Tree};
use crate::tenant::TenantId;

/// Most records that one commit of the new store takes, unless one tenant alone has more.
const BATCH: usize = 512;
const PAGE: usize = 512;

/// What was rescued, and what was not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Tenants that are as they were.
    pub tenants: u64,
    /// Tenants without some of their fields, by name.
    pub incomplete: Vec<(TenantId, Vec<String>)>,
    /// Tenants of which too little opens.
    pub lost: Vec<Lost>,
    /// Tokens that work in the new directory.
    pub tokens: u64,
    /// What the tokens are called that do not, in `token list` of the old one.
    pub lost_tokens: Vec<String>,
    /// Records in the new directory, those of tokens included.
    pub records: u64,
    /// The newest commit that any part of the old store has seen, and the newest that was rescued
    /// from, as far as they are known. What was removed or revoked between them may be there again.
    pub commits: (Option<u64>, Option<u64>),
}

/// A tenant that is lost.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Lost {
    /// Who, where anything still says so.
    pub tenant: Option<TenantId>,
    /// Where its records were, in hex.
    pub handle: String,
}

/// A rescue under way.
struct Rescue<'a> {
    remnants: &'a [Remnant],
    out: SealedStore,
    batch: Batch,
    waiting: usize,
    salvaged: Salvaged,
    /// Which of the lost tenants are not known by name.
    unnamed: HashMap<Handle, usize>,
    now: Timestamp,
}

impl TenantCredentialVault {
    /// Rescues into `out`, an empty data directory, every tenant and token that still opens. The new
    /// vault opens with what opens this one.
    ///
    /// # Errors
    ///
    /// Those of a wrong key; [`Error::HeaderDamaged`], [`Error::KeyringDamaged`]: only a backup helps;
    /// [`Error::Store`]. There is no vault in `out` then.
    pub fn salvage(
        &self,
        unlock: &Unlock,
        out: &DataDir,
        scratch: &Scratch,
        watch: &mut Watch<'_>,
    ) -> Result<Salvaged, Error> {
        let OpenedKeys { seal_key, keyring, header_bytes, keyring_bytes, .. } =
            self.open_keys(unlock).map_err(|(_, error)| error)?;
        let Remains { remnants, newest, .. } = self.remains(&keyring, scratch, true)?;
        let key = keyring.integrity_key();
        let store = Arc::new(SledStore::create(out, &key, &Options { ballast_bytes: 0 })?);
        let oldest = remnants.iter().find_map(|remnant| remnant.number);
        let mut rescue = Rescue {
            remnants: &remnants,
            out: SealedStore::new(store, self.store_id),
            batch: Batch::default(),
            waiting: 0,
            salvaged: Salvaged { commits: (newest, oldest), ..Salvaged::default() },
            unnamed: HashMap::new(),
            now: self.clock.now(),
        };
        let mut progress = CheckProgress { done: 0, total: keyring.entries().count() as u64 };
        let open = keyring.entries().map(|keys| (keys.handle, keys.next_handle));
        let sealed = keyring.sealed().map(|tenant| (tenant.handle(), None));
        for (handle, next) in open.chain(sealed).filter(|(handle, _)| *handle != Handle::SYSTEM) {
            // Where it has moved to first: as a whole, so that it is not in both.
            let homes = next.into_iter().chain([handle]);
            let owners = homes.map(|home| {
                records::owner(&keyring, Some(handle), home, self.store_id, Some(&seal_key))
            });
            rescue.tenant(handle, &owners.collect::<Result<Vec<_>, _>>()?)?;
            progress.done += 1;
            progress.total = progress.total.max(progress.done);
            watch(progress);
        }
        rescue.tokens(&keyring)?;
        rescue.backups(&keyring)?;
        rescue.operators(&keyring)?;
        rescue.flush()?;
        let Rescue { salvaged, out: rescued, .. } = rescue;
        let mut names = Batch::default();
        witness::name(&mut names, &header_bytes, &keyring_bytes);
        rescued.store().apply(names)?;
        drop(rescued);
        self.copy_certificates(out)?;
        out.write_atomically(DataDir::KEYRING, &keyring_bytes)?;
        // Last: with it there is a vault.
        out.initialise(&header_bytes)?;
        Ok(salvaged)
    }

    /// What proves deletions goes with the vault whose key has signed it.
    fn copy_certificates(&self, out: &DataDir) -> Result<(), Error> {
        for (name, text) in self.certificates()? {
            out.write_certificate(&name, text.as_bytes())?;
        }
        Ok(())
    }
}

impl Rescue<'_> {
    /// Rescues the tenant whose keys are at `handle` and whose records are at the first of the homes
    /// of `owners` that has them, or at another.
    fn tenant(&mut self, handle: Handle, owners: &[Owner]) -> Result<(), Error> {
        let homes = owners.iter().filter_map(|owner| match owner {
            Owner::Tenant(keys) => Some(keys),
            Owner::Sealed | Owner::Removed | Owner::Unknown => None,
        });
        let homes = homes.map(|keys| (keys, self.candidates(keys.handle)));
        let homes: Vec<_> = homes.collect();
        let examined = homes
            .iter()
            .map(|(keys, candidates)| (keys, records::examine(self.out.id(), keys, candidates)));
        let version = |examined: &Examined<'_>| examined.directory.as_ref().map(|it| it.version);
        let newest = examined.reduce(
            |one, other| {
                if version(&other.1) > version(&one.1) { other } else { one }
            },
        );
        let Some((
            keys,
            Examined { directory: Some(directory), kept, mut lost, is_counts_damaged, .. },
        )) = newest
        else {
            let was_empty = homes.iter().all(|(_, candidates)| candidates.is_empty());
            // Keys of an import that failed have never had a record.
            if !was_empty || !self.remnants.iter().any(|remnant| remnant.is_complete) {
                self.lose(handle, None);
            }
            return Ok(());
        };
        if lost.iter().any(|name| name == CONFIG) {
            self.lose(handle, Some(directory.id));
            return Ok(());
        }
        let (own, fields) = kept.split_first().ok_or(Error::KeyringDamaged)?;
        let id = directory.id.clone();
        if lost.is_empty() {
            self.put(Tree::Tenant, own);
        } else {
            let directory = without(directory, &lost, self.now);
            let record = (FieldId::DIRECTORY.0, directory.version);
            let payload = directory.encode();
            self.out.put(&mut self.batch, keys, RecordKind::Directory, record, &payload)?;
            self.count();
        }
        if is_counts_damaged {
            lost.push(COUNTS.to_owned());
        }
        if lost.is_empty() {
            self.salvaged.tenants += 1;
        } else {
            self.salvaged.incomplete.push((id, lost));
        }
        for pair in fields {
            self.put(Tree::Tenant, pair);
        }
        if self.waiting >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Everything at `handle` in any remnant, in key order, and of each key the newest first.
    fn candidates(&self, handle: Handle) -> Vec<Pair> {
        let mut candidates = Vec::new();
        for remnant in self.remnants {
            // One that cannot be read there may be in another.
            candidates.extend(remnant.store.scan(Tree::Tenant, &handle.0).unwrap_or_default());
        }
        candidates.sort_by(|(one, _), (other, _)| one.cmp(other));
        candidates
    }

    fn tokens(&mut self, keyring: &Keyring) -> Result<(), Error> {
        let system = keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?;
        let remnants = self.remnants;
        for (index, remnant) in remnants.iter().enumerate() {
            let (newer, older) = (&remnants[..index], &remnants[index + 1..]);
            let mut after = None::<Vec<u8>>;
            while let Ok(pairs) = remnant.store.scan_after(Tree::Token, after.as_deref(), PAGE) {
                let Some((last, _)) = pairs.last() else { break };
                after = Some(last.clone());
                for pair in &pairs {
                    if !newer.iter().any(|newer| has_token(newer, &pair.0)) {
                        self.token(keyring, system, pair, older)?;
                    }
                }
            }
            if remnant.is_complete {
                // What only an older one has was revoked.
                break;
            }
        }
        Ok(())
    }

    /// Rescues the token `pair`, or what an `older` remnant has of it.
    fn token(
        &mut self,
        keyring: &Keyring,
        system: &TenantKeys,
        pair: &Pair,
        older: &[Remnant],
    ) -> Result<(), Error> {
        let found = older.iter().filter_map(|older| {
            let envelope = older.store.get(Tree::Token, &pair.0).ok()??;
            Some((pair.0.clone(), envelope))
        });
        for (key, envelope) in std::iter::once(pair.clone()).chain(found) {
            let Ok(token) = records::open_token(&self.out, system, &key, &envelope) else {
                continue;
            };
            for handle in keyring.handles(&token.tenant) {
                if let Some(lost) = self.unnamed.remove(&handle) {
                    self.salvaged.lost[lost].tenant = Some(token.tenant.clone());
                }
            }
            self.put(Tree::Token, &(key, envelope));
            self.salvaged.tokens += 1;
            return if self.waiting >= BATCH { self.flush() } else { Ok(()) };
        }
        self.salvaged.lost_tokens.push(token::damaged_name(&pair.0));
        Ok(())
    }

    /// What the vault knows of its backups. The newest remnant that has a record of one counts.
    fn backups(&mut self, keyring: &Keyring) -> Result<(), Error> {
        let system = keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?;
        let remnants = self.remnants;
        let mut found = BTreeSet::new();
        for remnant in remnants {
            for pair in remnant.store.scan(Tree::Meta, backup::RECORD_PREFIX).unwrap_or_default() {
                let (key, envelope) = &pair;
                let opens = backup::open_known(&self.out, system, key, envelope).is_ok();
                if opens && found.insert(key.clone()) {
                    self.put(Tree::Meta, &pair);
                }
            }
            if remnant.is_complete {
                break;
            }
        }
        Ok(())
    }

    /// The tokens of operators, as the newest remnant has them that they open in.
    fn operators(&mut self, keyring: &Keyring) -> Result<(), Error> {
        let system = keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?;
        let remnants = self.remnants;
        for remnant in remnants {
            if let Ok(Some(envelope)) = remnant.store.get(Tree::Meta, operator::KEY)
                && operator::open(&self.out, system, &envelope).is_ok()
            {
                self.put(Tree::Meta, &(operator::KEY.to_vec(), envelope));
                break;
            }
            if remnant.is_complete {
                break;
            }
        }
        Ok(())
    }

    fn lose(&mut self, handle: Handle, tenant: Option<TenantId>) {
        if tenant.is_none() {
            self.unnamed.insert(handle, self.salvaged.lost.len());
        }
        self.salvaged.lost.push(Lost { tenant, handle: hex(&handle.0) });
    }

    fn put(&mut self, tree: Tree, (key, value): &Pair) {
        self.batch.put(tree, key.as_slice(), value.as_slice());
        self.count();
    }

    fn count(&mut self) {
        self.waiting += 1;
        self.salvaged.records += 1;
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.waiting = 0;
        Ok(self.out.store().apply(std::mem::take(&mut self.batch))?)
    }
}

fn has_token(remnant: &Remnant, key: &[u8]) -> bool {
    remnant.store.get(Tree::Token, key).is_ok_and(|found| found.is_some())
}

/// `directory` without the fields `lost`. Without its own certificates a tenant would trust those
/// that everybody trusts: it is switched off until somebody has looked.
fn without(directory: Directory, lost: &[String], now: Timestamp) -> Directory {
    let is_lost = |field: &Field| lost.contains(&field.name);
    let trusts_others = directory
        .fields
        .iter()
        .any(|field| field.id.kind() == RecordKind::Certificate && is_lost(field));
    let mut fields = directory.fields;
    fields.retain(|field| !is_lost(field));
    Directory {
        enabled: directory.enabled && !trusts_others,
        updated_at: now,
        version: directory.version.saturating_add(1),
        fields,
        ..directory
    }
}
