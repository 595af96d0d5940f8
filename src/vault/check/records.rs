//! Every record of every tenant, and every token, opened.
//!
//! ```text
//! pairs, in key order --> one tenant's at a time --> newest directory that opens --> each field it lists
//!                                                    anything amiss: read again while nobody writes
//! ```
//!
//! What is opened is wiped before the next record is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::certificate::hex;
use super::super::envelope::{self, Place, RecordKind};
use super::super::key::Key;
use super::super::keyring::{Keyring, TenantKeys};
use super::super::operator;
use super::super::record::{self, Certificates, Directory, FieldId};
use super::super::sealed::{RECORD_KEY_LENGTH, SealedStore, record_key};
use super::super::token;
use super::super::unsealed::Unsealed;
use super::super::{Error, Handle, StoreId};
use super::report::{Finding, Part, PartReport};
use crate::store::{Pair, Tree};

const MEND_FIELD: &str = "import the tenant's file again, which replaces what does not open, or \
                          remove the tenant";
const MEND_COUNTS: &str = "set it to 0 with `tenantry quota reset`";
const MEND_OPERATORS: &str = "`tenantry operator revoke all`, and make them anew";
const MEND_TENANT: &str = "restore from a backup, or rescue the others with `tenantry fsck --salvage \
                           OUT` and import this tenant there";
const MEND_KEYRING: &str = "restore the keyring that belongs to this store, or a backup";
const MEND_TOKEN: &str = "revoke it with `tenantry token revoke`, and make another for its bearer";

/// Where the keys and the records are that belong together.
pub(super) enum Source<'a> {
    /// A vault that serves. What is amiss is read again while nothing is written: a pair that was
    /// met on a walk may have been replaced since.
    Live(&'a Unsealed),
    /// A keyring, and a store that nobody writes.
    Closed { keyring: &'a Keyring, records: &'a SealedStore, former: &'a HashMap<Handle, Handle> },
}

/// Whose the records at a handle are.
pub(super) enum Owner {
    Tenant(Arc<TenantKeys>),
    /// A sealed tenant, and there is no key to open its keys with.
    Sealed,
    /// What a removal that was interrupted left. The next opening removes it.
    Removed,
    Unknown,
}

/// What of a tenant opens.
#[derive(Debug, Default)]
pub(super) struct Examined<'a> {
    /// The newest one that opens.
    pub(super) directory: Option<Directory>,
    /// The directory and every record of every field that is whole.
    pub(super) kept: Vec<&'a Pair>,
    /// Names of the fields that the directory lists and that are not whole.
    pub(super) lost: Vec<String>,
    /// Whether what was counted of the tenant does not open.
    pub(super) is_counts_damaged: bool,
    /// How many records the directory does not list.
    pub(super) strays: usize,
}

impl Examined<'_> {
    fn is_whole(&self) -> bool {
        let Self { directory, lost, is_counts_damaged, strays, .. } = self;
        directory.is_some() && lost.is_empty() && !is_counts_damaged && *strays == 0
    }
}

/// A check of records that is under way: pairs go in, in the order of trees and keys.
#[derive(Debug)]
pub(super) struct Progressing {
    pub(super) records: PartReport,
    pub(super) tokens: PartReport,
    /// Pairs of one tenant, until the first of the next one comes.
    group: Vec<Pair>,
    /// Findings about tenants that nobody could name yet.
    unnamed: BTreeMap<Handle, usize>,
}

impl Progressing {
    pub(super) fn new() -> Self {
        Self {
            records: PartReport::new(Part::Records),
            tokens: PartReport::new(Part::Tokens),
            group: Vec::new(),
            unnamed: BTreeMap::new(),
        }
    }

    /// Checks the next `pairs`, as far as the tenant that they end with.
    pub(super) fn take(
        &mut self,
        source: &Source<'_>,
        seal_key: Option<&Key>,
        pairs: Vec<(Tree, Pair)>,
    ) -> Result<(), Error> {
        for (tree, pair) in pairs {
            match tree {
                Tree::Meta if pair.0 == operator::KEY => {
                    self.tokens.checked += 1;
                    if source.open_operators(&pair.1).is_err() {
                        let message = "the tokens of operators do not open";
                        self.tokens.damaged(Finding::new(message, MEND_OPERATORS));
                    }
                }
                Tree::Meta => {}
                Tree::Tenant => {
                    let is_another =
                        self.group.last().is_some_and(|last| prefix(&last.0) != prefix(&pair.0));
                    if is_another {
                        self.end_group(source, seal_key)?;
                    }
                    self.records.checked += 1;
                    self.group.push(pair);
                }
                Tree::Token => {
                    self.end_group(source, seal_key)?;
                    self.tokens.checked += 1;
                    self.token(source, &pair)?;
                }
            }
        }
        Ok(())
    }

    /// Checks the last tenant. To be called after the last [`Self::take`].
    pub(super) fn end_group(
        &mut self,
        source: &Source<'_>,
        seal_key: Option<&Key>,
    ) -> Result<(), Error> {
        let group = std::mem::take(&mut self.group);
        let Some((key, _)) = group.first() else { return Ok(()) };
        let Some(handle) = key.first_chunk().map(|handle| Handle(*handle)) else {
            self.records.damaged(Finding::new("a record's key is too short", MEND_TENANT));
            return Ok(());
        };
        let store_id = source.records().id();
        let owner = source.with_keyring(|keyring| source.owner(keyring, handle, seal_key))?;
        let is_fine = match &owner {
            Owner::Tenant(keys) => examine(store_id, keys, &group).is_whole(),
            Owner::Sealed | Owner::Removed => true,
            Owner::Unknown => false,
        };
        if is_fine {
            return Ok(());
        }
        match source {
            Source::Closed { .. } => self.note(store_id, handle, &owner, &group),
            Source::Live(vault) => {
                // While this is held, nothing is written, and keys and records fit together.
                let _writing = vault.writing();
                let group = vault.records.store().scan(Tree::Tenant, &handle.0)?;
                if group.is_empty() {
                    return Ok(());
                }
                let owner = source.owner(&vault.keyring(), handle, seal_key)?;
                self.note(store_id, handle, &owner, &group);
            }
        }
        Ok(())
    }

    /// Notes what is amiss with the records `group` at `handle`, if anything is.
    fn note(&mut self, store_id: StoreId, handle: Handle, owner: &Owner, group: &[Pair]) {
        let keys = match owner {
            Owner::Tenant(keys) => keys,
            Owner::Sealed | Owner::Removed => return,
            Owner::Unknown => {
                let message = format!(
                    "the keyring has no key for {} records at handle {}",
                    group.len(),
                    hex(&handle.0)
                );
                self.unnamed.insert(handle, self.records.findings.len());
                return self.records.damaged(Finding::new(message, MEND_KEYRING));
            }
        };
        let examined = examine(store_id, keys, group);
        let Examined { directory, lost, is_counts_damaged, strays, .. } = examined;
        let Some(directory) = directory else {
            let message =
                format!("the directory of the tenant at handle {} does not open", hex(&handle.0));
            self.unnamed.insert(handle, self.records.findings.len());
            return self.records.damaged(Finding::new(message, MEND_TENANT));
        };
        if !lost.is_empty() {
            let message = format!("missing or damaged: {}", lost.join(", "));
            self.records.damaged(Finding::new(message, MEND_FIELD).of(Some(&directory.id)));
        }
        if is_counts_damaged {
            let message = "what it has used of its quotas does not open";
            self.records.damaged(Finding::new(message, MEND_COUNTS).of(Some(&directory.id)));
        }
        if strays > 0 {
            let message = format!("{strays} records that its directory does not list");
            self.records.damaged(Finding::new(message, MEND_TENANT).of(Some(&directory.id)));
        }
    }

    fn token(&mut self, source: &Source<'_>, (key, envelope): &Pair) -> Result<(), Error> {
        let mut opened = source.open_token(key, envelope);
        if opened.is_err()
            && let Source::Live(vault) = source
        {
            let _writing = vault.writing();
            match vault.records.store().get(Tree::Token, key)? {
                None => return Ok(()),
                Some(envelope) => opened = source.open_token(key, &envelope),
            }
        }
        if let Ok(token) = opened {
            self.name(source, &token);
        } else {
            let message = format!("{} does not open", token::damaged_name(key));
            self.tokens.damaged(Finding::new(message, MEND_TOKEN));
        }
        Ok(())
    }

    /// A token names its tenant: maybe one whose records do not.
    fn name(&mut self, source: &Source<'_>, token: &token::TokenRecord) {
        if self.unnamed.is_empty() {
            return;
        }
        let handles = source.with_keyring(|keyring| keyring.handles(&token.tenant));
        for handle in handles {
            if let Some(finding) = self.unnamed.remove(&handle)
                && let Some(finding) = self.records.findings.get_mut(finding)
            {
                finding.tenant = Some(token.tenant.clone());
            }
        }
    }
}

impl Source<'_> {
    pub(super) fn records(&self) -> &SealedStore {
        match self {
            Self::Live(vault) => &vault.records,
            Self::Closed { records, .. } => records,
        }
    }

    fn with_keyring<T>(&self, work: impl FnOnce(&Keyring) -> T) -> T {
        match self {
            Self::Live(vault) => work(&vault.keyring()),
            Self::Closed { keyring, .. } => work(keyring),
        }
    }

    fn owner(
        &self,
        keyring: &Keyring,
        handle: Handle,
        seal_key: Option<&Key>,
    ) -> Result<Owner, Error> {
        let former = match self {
            // Keys move with the records that they open.
            Self::Live(_) => None,
            Self::Closed { former, .. } => former.get(&handle),
        };
        owner(keyring, former.copied(), handle, self.records().id(), seal_key)
    }

    fn open_operators(&self, envelope: &[u8]) -> Result<Vec<operator::Known>, Error> {
        match self {
            Self::Live(vault) => vault.operators(),
            Self::Closed { keyring, records, .. } => {
                let system = keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?;
                operator::open(records, system, envelope)
            }
        }
    }

    fn open_token(&self, key: &[u8], envelope: &[u8]) -> Result<token::TokenRecord, Error> {
        match self {
            Self::Live(vault) => vault.open_token(key, envelope),
            Self::Closed { keyring, records, .. } => {
                let system = keyring.get(Handle::SYSTEM).ok_or(Error::KeyringDamaged)?;
                open_token(records, system, key, envelope)
            }
        }
    }
}

/// Opens a token's record with the system's keys.
pub(super) fn open_token(
    records: &SealedStore,
    system: &TenantKeys,
    key: &[u8],
    envelope: &[u8],
) -> Result<token::TokenRecord, Error> {
    let place = records.place(RecordKind::Token, token::FIELD, token::VERSION, key);
    let opened = envelope::open(system, &place, envelope)?;
    record::decode_token(&opened).map_err(|_| place.damaged())
}

/// Whose the records at `handle` are, which had the handle `former` before they moved there.
pub(super) fn owner(
    keyring: &Keyring,
    former: Option<Handle>,
    handle: Handle,
    store_id: StoreId,
    seal_key: Option<&Key>,
) -> Result<Owner, Error> {
    if let Some(keys) = keyring.get(handle) {
        return Ok(Owner::Tenant(Arc::clone(keys)));
    }
    if let Some(keys) = former.and_then(|former| keyring.get(former)) {
        return Ok(Owner::Tenant(Arc::new(keys.moved())));
    }
    if let Some(sealed) = keyring.sealed_at(handle) {
        return Ok(match seal_key {
            Some(key) => Owner::Tenant(Arc::new(sealed.open(store_id, key)?)),
            None => Owner::Sealed,
        });
    }
    Ok(if keyring.is_removed(handle) { Owner::Removed } else { Owner::Unknown })
}

/// Opens what is among `records`, all of them at the handle of `tenant` and in key order. A key may
/// come more than once: the first of them that opens counts.
pub(super) fn examine<'a>(
    store_id: StoreId,
    tenant: &TenantKeys,
    records: &'a [Pair],
) -> Examined<'a> {
    let mut examined = Examined::default();
    let opens = |(field, version), kind, pair: &Pair| {
        let (key, envelope) = pair;
        let place = Place { store_id, kind, field, version, key };
        envelope::open(tenant, &place, envelope).ok()
    };
    let directories = records.iter().rev().filter_map(|pair| {
        let (field, version) = field_and_version(&pair.0)?;
        if field != FieldId::DIRECTORY.0 {
            return None;
        }
        let opened = opens((field, version), RecordKind::Directory, pair)?;
        let directory = Directory::decode(&opened).ok()?;
        let is_its = directory.version == version && directory.uuid == tenant.uuid;
        is_its.then_some((directory, pair))
    });
    let Some((directory, own)) = { directories }.next() else { return examined };
    examined.kept.push(own);

    let mut certificates = Certificates::default();
    let mut config = None;
    for field in &directory.fields {
        let kind = field.id.kind();
        let mut content = Zeroizing::new(Vec::new());
        let mut found = Vec::new();
        let is_whole = field.records().all(|(number, version)| {
            let key = record_key(tenant.handle, number, version);
            let mut candidates = records[records.partition_point(|pair| *pair.0 < key[..])..]
                .iter()
                .take_while(|pair| pair.0 == key);
            let opened =
                candidates.find_map(|pair| Some((pair, opens((number, version), kind, pair)?)));
            let Some((pair, opened)) = opened else { return false };
            found.push(pair);
            if kind == RecordKind::Credential {
                // It stays where it was decrypted.
                return std::str::from_utf8(&opened).is_ok();
            }
            content.extend_from_slice(&opened);
            true
        });
        if !is_whole {
            examined.lost.push(field.name.clone());
            continue;
        }
        match kind {
            RecordKind::Certificate => {
                let Ok(pem) = std::str::from_utf8(&content) else {
                    examined.lost.push(field.name.clone());
                    continue;
                };
                let certificate = if field.id == FieldId::CERTIFICATES {
                    &mut certificates.roots
                } else {
                    &mut certificates.client
                };
                *certificate = Some(pem.to_owned());
            }
            RecordKind::Config => {
                // Read below, once the certificates are known.
                config = Some((field.name.clone(), content, found));
                continue;
            }
            RecordKind::Backup
            | RecordKind::Counts
            | RecordKind::Credential
            | RecordKind::Directory
            | RecordKind::Operators
            | RecordKind::Token => {}
        }
        examined.kept.append(&mut found);
    }
    if let Some((name, content, mut found)) = config {
        match record::decode_config(directory.id.clone(), certificates, &content) {
            Ok(_) => examined.kept.append(&mut found),
            Err(_) => examined.lost.push(name),
        }
    } else if !examined.lost.iter().any(|name| name == CONFIG) {
        // No tenant is without.
        examined.lost.push(CONFIG.to_owned());
    }
    let listed: usize = directory.fields.iter().map(|field| usize::from(field.chunks)).sum();
    let mut keys: Vec<&[u8]> = records.iter().map(|pair| &*pair.0).collect();
    keys.dedup();
    // No directory lists what is counted.
    let counts = record_key(tenant.handle, FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
    if keys.pop_if(|key| **key == counts).is_some() {
        let record = (FieldId::COUNTS.0, FieldId::COUNTS_VERSION);
        let mut candidates = records.iter().filter(|pair| pair.0 == counts);
        match candidates.find(|pair| opens(record, RecordKind::Counts, pair).is_some()) {
            Some(pair) => examined.kept.push(pair),
            None => examined.is_counts_damaged = true,
        }
    }
    let is_listed = |key: &&[u8]| {
        let Some((field, version)) = field_and_version(key) else { return false };
        directory.records().any(|(_, number, at)| (number, at) == (field, version))
    };
    // The usual case by counting, without comparing each with each.
    examined.strays = if keys.len() == listed + 1 && examined.lost.is_empty() {
        0
    } else {
        keys.iter().filter(|key| !is_listed(key)).count()
    };
    examined.directory = Some(directory);
    examined
}

/// The name of the field without which nothing is known of a tenant.
pub(super) const CONFIG: &str = "config";
/// What a tenant has used of its quotas, among what is lost of it.
pub(super) const COUNTS: &str = "counts";

fn field_and_version(key: &[u8]) -> Option<(u16, u64)> {
    let key: &[u8; RECORD_KEY_LENGTH] = key.try_into().ok()?;
    let (_, rest) = key.split_at(Handle::LENGTH);
    let (field, version) = rest.split_at(2);
    let field = u16::from_be_bytes(field.try_into().ok()?);
    Some((field, u64::from_be_bytes(version.try_into().ok()?)))
}

fn prefix(key: &[u8]) -> &[u8] {
    key.get(..Handle::LENGTH).unwrap_or(key)
}
