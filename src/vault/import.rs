//! Taking tenants in: compare with what is stored, then one commit of what differs.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use subtle::ConstantTimeEq;

use super::envelope::{MAX_PAYLOAD, RecordKind};
use super::keyring::{Found, IdDigest, Keyring, TenantKeys};
use super::record::{self, Directory, Field, FieldId};
use super::sealed::{self, API_KEYS_PREFIX, fingerprint, secret_bytes};
use super::unsealed::{Unsealed, Writing};
use super::{Entry, Error, TenantCredentialVault};
use crate::memory::SecretText;
use crate::store::{Batch, DataDir};
use crate::tenant::{
    Access, Connection, Credentials, Limits, PostgresTarget, ResolvedTenant, TenantConfig, TenantId,
};

const DB_PASSWORD: &str = "db_password";
const DB_SSLKEY: &str = "db_sslkey";
const CERTIFICATES: &str = "db_sslrootcert";
const CLIENT_CERTIFICATE: &str = "db_sslcert";
/// The name of the record of everything that has none of its own.
pub(super) const CONFIG: &str = "config";

/// What an import does to one tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Which.
    pub tenant: TenantId,
    /// What.
    pub kind: ChangeKind,
}

/// What happens to a tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a set is compared with a set")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It differs.
    Changed {
        /// Names as in the tenant file, such as `quotas.max_queries_per_hour`; sorted.
        fields: Vec<String>,
    },
    /// It is as it was; nothing is written.
    Unchanged,
}

impl TenantCredentialVault {
    /// What [`Self::import`] would do. Writes nothing.
    pub fn plan(&self, tenants: &[ResolvedTenant]) -> Result<Vec<Change>, Error> {
        let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.config.id.clone()).collect();
        self.plan_each(&ids, |at| Ok(&tenants[at]))
    }

    /// The same of the tenants `ids`; `read` gives the one at a place among them.
    ///
    /// # Errors
    ///
    /// As [`Self::import_each`].
    pub fn plan_each<T: Borrow<ResolvedTenant>, E: From<Error>>(
        &self,
        ids: &[TenantId],
        read: impl FnMut(usize) -> Result<T, E>,
    ) -> Result<Vec<Change>, E> {
        self.unsealed(|vault| Ok(vault.plan(ids, read)))?
    }

    /// Stores `tenants`, all of them in one commit or none. One that is as it was costs no write,
    /// one that is disabled stays so, and of a damaged one what does not open is replaced; but one
    /// whose directory does not open has to be removed first.
    ///
    /// # Errors
    ///
    /// - [`Error::CaseConflict`], [`Error::Duplicate`], [`Error::Removed`], [`Error::Sealed`],
    ///   [`Error::TenantSealed`], [`Error::TooLarge`], [`Error::RecordDamaged`]: nothing is stored.
    /// - [`Error::Store`]: nothing is visible. After a failure of the disk it is known only at the
    ///   next unsealing whether all are stored, or none.
    pub fn import(&self, tenants: Vec<ResolvedTenant>) -> Result<Vec<Change>, Error> {
        let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.config.id.clone()).collect();
        let mut tenants: Vec<_> = tenants.into_iter().map(Some).collect();
        self.import_each(&ids, |at| tenants[at].take().ok_or(Error::NotConfigured))
    }

    /// The same of the tenants `ids`. `read` gives the one at a place among them, and is asked for
    /// each once, in the order in which the store keeps them: so the memory that it takes hardly
    /// grows with their number. What is sealed waits in a file.
    /// `./dev bench --bench store -- scale`
    ///
    /// # Errors
    ///
    /// Those of `read`, and [`Error::NotConfigured`] when it gives another tenant: nothing is stored.
    pub fn import_each<E: From<Error>>(
        &self,
        ids: &[TenantId],
        read: impl FnMut(usize) -> Result<ResolvedTenant, E>,
    ) -> Result<Vec<Change>, E> {
        self.unsealed(|vault| {
            let imported = vault.import(ids, read, &self.directory);
            if imported.is_ok() {
                vault.witness.settle()?;
            }
            Ok(imported)
        })?
    }

    /// Lets removed tenants be imported again, as new ones. Others stay as they are.
    ///
    /// # Errors
    ///
    /// [`Error::Sealed`], [`Error::Store`].
    pub fn readmit(&self, ids: &[TenantId]) -> Result<(), Error> {
        self.changing(|vault| {
            let mut writing = vault.writing();
            let handles: Vec<_> = {
                let keyring = vault.keyring();
                let tombstones = ids.iter().filter_map(|id| keyring.tombstone(keyring.digest(id)));
                tombstones.map(|tombstone| tombstone.handle).collect()
            };
            if handles.is_empty() {
                return Ok(());
            }
            // Of a removal that failed: without its tombstone a record would be one whose key is
            // missing, and a token would be the new tenant's.
            vault.finish_removals(&handles)?;
            vault.change_keyring(&mut writing, |keyring| {
                for id in ids {
                    keyring.readmit(id);
                }
                Ok(())
            })
        })
    }
}

impl Unsealed {
    fn plan<T: Borrow<ResolvedTenant>, E: From<Error>>(
        &self,
        ids: &[TenantId],
        mut read: impl FnMut(usize) -> Result<T, E>,
    ) -> Result<Vec<Change>, E> {
        let writing = self.writing();
        let mut keyring = self.keyring().clone();
        let mut kinds = vec![ChangeKind::Unchanged; ids.len()];
        for place in places(ids, &mut keyring)? {
            let tenant = read(place.at)?;
            kinds[place.at] = self.next(&writing, &place, &ids[place.at], tenant.borrow())?.0;
        }
        Ok(changes(ids, kinds))
    }

    fn import<E: From<Error>>(
        &self,
        ids: &[TenantId],
        mut read: impl FnMut(usize) -> Result<ResolvedTenant, E>,
        directory: &DataDir,
    ) -> Result<Vec<Change>, E> {
        let mut writing = self.writing();
        let mut keyring = self.keyring().clone();
        let places = places(ids, &mut keyring)?;
        let is_any_new = places.iter().any(|place| place.is_new);
        let now = self.clock.now();
        let mut kinds = vec![ChangeKind::Unchanged; ids.len()];
        let mut batch = directory.large_batch().map_err(Error::from)?;
        for place in places {
            let id = &ids[place.at];
            // The plaintext credentials end with it.
            let tenant = read(place.at)?;
            let (kind, current) = self.next(&writing, &place, id, &tenant)?;
            if kind != ChangeKind::Unchanged {
                let (keys, current) = (place.keys, current.as_ref());
                let import = Import { vault: self, id, keys, current, kind: &kind, now };
                batch.append(&import.seal(&tenant)?).map_err(Error::from)?;
            }
            kinds[place.at] = kind;
        }
        if is_any_new {
            self.save_keyring(&mut writing, keyring)?;
        }
        self.witness.apply_large(batch)?;
        let changes = changes(ids, kinds);
        let is_changed = |change: &&Change| change.kind != ChangeKind::Unchanged;
        self.changed(changes.iter().filter(is_changed).map(|change| &change.tenant));
        Ok(changes)
    }

    /// What is to be done of `tenant`, and what is stored of it.
    fn next(
        &self,
        writing: &Writing,
        place: &Place,
        id: &TenantId,
        tenant: &ResolvedTenant,
    ) -> Result<(ChangeKind, Option<Entry>), Error> {
        if tenant.config.id != *id {
            return Err(Error::NotConfigured);
        }
        // Keys without a record are of an import that failed.
        let entry = if place.is_new { None } else { self.records.entry(&place.keys)? };
        let kind = match &entry {
            None => ChangeKind::Added,
            Some(entry) if entry.directory.id != *id => {
                let existing = entry.directory.id.clone();
                return Err(Error::CaseConflict { tenant: id.clone(), existing });
            }
            Some(entry) => self.compare(writing, tenant, entry)?,
        };
        Ok((kind, entry))
    }

    /// While nothing is written.
    fn compare(
        &self,
        _: &Writing,
        tenant: &ResolvedTenant,
        entry: &Entry,
    ) -> Result<ChangeKind, Error> {
        let mut fields = Vec::new();
        match self.records.config(entry) {
            Ok(stored) if stored == tenant.config => {}
            Ok(stored) => {
                let (mut old, new) = (describe(&stored), describe(&tenant.config));
                for (name, value) in new {
                    if old.remove(&name).as_ref() != Some(&value) {
                        fields.push(name);
                    }
                }
                fields.extend(old.into_keys());
            }
            // What does not open is replaced, which mends it.
            Err(Error::RecordDamaged { .. }) => {
                fields.push(CONFIG.to_owned());
                for (_, name, pem) in certificates(&tenant.config) {
                    if pem.is_some() || entry.directory.field(name).is_some() {
                        fields.push(name.to_owned());
                    }
                }
            }
            Err(error) => return Err(error),
        }
        let secrets = secrets(&tenant.credentials);
        for (name, secret) in &secrets {
            let same = match entry.directory.field(name) {
                None => false,
                Some(field) => match self.records.credential(entry, field) {
                    Ok(opened) => bool::from(opened.ct_eq(secret_bytes(secret))),
                    Err(Error::RecordDamaged { .. }) => false,
                    Err(error) => return Err(error),
                },
            };
            if !same {
                fields.push(name.clone());
            }
        }
        let removed = entry.directory.credentials().map(|field| &field.name);
        fields.extend(removed.filter(|name| !secrets.contains_key(*name)).cloned());
        fields.sort_unstable();
        Ok(if fields.is_empty() { ChangeKind::Unchanged } else { ChangeKind::Changed { fields } })
    }
}

/// Where a tenant that is imported is.
struct Place {
    /// Among those that are imported.
    at: usize,
    /// Whether there were no keys of it.
    is_new: bool,
    keys: Arc<TenantKeys>,
}

/// Where the tenants `ids` are, or are to be, in the order of the store. `keyring` gets keys for
/// those that are new.
fn places(ids: &[TenantId], keyring: &mut Keyring) -> Result<Vec<Place>, Error> {
    let mut seen: HashMap<IdDigest, &TenantId> = HashMap::with_capacity(ids.len());
    let mut places = Vec::with_capacity(ids.len());
    for (at, id) in ids.iter().enumerate() {
        let name = keyring.digest(id);
        match seen.insert(name, id) {
            Some(earlier) if earlier == id => return Err(Error::Duplicate(id.clone())),
            Some(earlier) => {
                let (tenant, existing) = (id.clone(), earlier.clone());
                return Err(Error::CaseConflict { tenant, existing });
            }
            None => {}
        }
        let is_new = match keyring.find_name(name) {
            Some(Found::Sealed(sealed)) => {
                return Err(Error::TenantSealed(sealed.id.clone()));
            }
            Some(Found::Open(_)) => false,
            None => true,
        };
        if is_new && let Some(tombstone) = keyring.tombstone(name) {
            return Err(Error::Removed { tenant: id.clone(), at: tombstone.removed_at() });
        }
        places.push(Place { at, is_new, keys: keyring.get_or_create(id)? });
    }
    places.sort_unstable_by_key(|place| place.keys.handle);
    Ok(places)
}

fn changes(ids: &[TenantId], kinds: Vec<ChangeKind>) -> Vec<Change> {
    let changes = ids.iter().cloned().zip(kinds);
    changes.map(|(tenant, kind)| Change { tenant, kind }).collect()
}

/// One tenant's way into a batch.
pub(super) struct Import<'a> {
    pub(super) vault: &'a Unsealed,
    pub(super) id: &'a TenantId,
    pub(super) keys: Arc<TenantKeys>,
    pub(super) current: Option<&'a Entry>,
    pub(super) kind: &'a ChangeKind,
    pub(super) now: Timestamp,
}

impl Import<'_> {
    /// Seals what changed, and removes what it replaces.
    fn seal(&self, tenant: &ResolvedTenant) -> Result<Batch, Error> {
        let mut own = Batch::default();
        let batch = &mut own;
        let mut fields = Vec::new();
        for (name, secret) in &secrets(&tenant.credentials) {
            fields.push(self.credential(batch, &fields, name, secret)?);
        }
        let config = record::encode_config(&tenant.config);
        fields.push(self.chunked(batch, FieldId::CONFIG, CONFIG, RecordKind::Config, &config)?);
        for (id, name, pem) in certificates(&tenant.config) {
            if let Some(pem) = pem {
                let kind = RecordKind::Certificate;
                fields.push(self.chunked(batch, id, name, kind, pem.as_bytes())?);
            }
        }
        self.put_directory(batch, fields)?;
        Ok(own)
    }

    /// Puts the directory of `fields`, and removes what they replace.
    pub(super) fn put_directory(
        &self,
        batch: &mut Batch,
        mut fields: Vec<Field>,
    ) -> Result<(), Error> {
        fields.sort_unstable_by_key(|field| field.id);
        let current = self.current.map(|entry| &*entry.directory);
        let directory = Directory {
            id: self.id.clone(),
            uuid: self.keys.uuid,
            enabled: current.is_none_or(|current| current.enabled),
            created_at: current.map_or(self.now, |current| current.created_at),
            updated_at: self.now,
            version: self.version(),
            fields,
        };
        if directory.encode().len() > MAX_PAYLOAD {
            return Err(self.too_large("api_keys"));
        }
        for replaced in current.iter().flat_map(|current| &current.fields) {
            if !directory.fields.contains(replaced) {
                for record in replaced.records() {
                    sealed::remove(batch, &self.keys, record);
                }
            }
        }
        self.vault.put_directory(batch, &self.keys, &directory, current)
    }

    fn credential(
        &self,
        batch: &mut Batch,
        earlier: &[Field],
        name: &str,
        secret: &SecretText,
    ) -> Result<Field, Error> {
        let current = self.current.and_then(|entry| entry.directory.field(name));
        if let Some(current) = current.filter(|_| !self.differs(name)) {
            return Ok(current.clone());
        }
        let id = match current {
            Some(current) => current.id,
            None if name == DB_PASSWORD => FieldId::DB_PASSWORD,
            None if name == DB_SSLKEY => FieldId::DB_SSLKEY,
            None => self.free_api_key(earlier).ok_or_else(|| self.too_large("api_keys"))?,
        };
        let payload = secret_bytes(secret);
        if payload.len() > MAX_PAYLOAD {
            return Err(self.too_large(name));
        }
        let version = self.version();
        let record = (id.0, version);
        self.vault.records.put(batch, &self.keys, RecordKind::Credential, record, payload)?;
        let fingerprint = fingerprint(&self.vault.fingerprint_key, &self.keys, name, secret);
        Ok(Field { id, version, chunks: 1, name: name.to_owned(), set_at: self.now, fingerprint })
    }

    pub(super) fn chunked(
        &self,
        batch: &mut Batch,
        id: FieldId,
        name: &str,
        kind: RecordKind,
        bytes: &[u8],
    ) -> Result<Field, Error> {
        let current = self.current.and_then(|entry| entry.directory.field(name));
        if let Some(current) = current.filter(|_| !self.differs(name)) {
            return Ok(current.clone());
        }
        let version = self.version();
        // Also nothing has one chunk.
        let chunks = bytes.len().div_ceil(MAX_PAYLOAD).max(1);
        let chunks = u16::try_from(chunks).ok().filter(|chunks| *chunks <= FieldId::MAX_CHUNKS);
        let chunks = chunks.ok_or_else(|| self.too_large(name))?;
        let field = Field {
            id,
            version,
            chunks,
            name: name.to_owned(),
            set_at: self.now,
            fingerprint: [0; 4],
        };
        let pieces = bytes.chunks(MAX_PAYLOAD).chain(bytes.is_empty().then_some(bytes));
        for (record, piece) in field.records().zip(pieces) {
            self.vault.records.put(batch, &self.keys, kind, record, piece)?;
        }
        Ok(field)
    }

    /// Whether the field that is stored as `name` is not what it was.
    fn differs(&self, name: &str) -> bool {
        match self.kind {
            ChangeKind::Added => true,
            ChangeKind::Unchanged => false,
            ChangeKind::Changed { fields } if name == CONFIG => fields.iter().any(|field| {
                let has_own = [DB_PASSWORD, DB_SSLKEY, CERTIFICATES, CLIENT_CERTIFICATE];
                !has_own.contains(&field.as_str()) && !field.starts_with(API_KEYS_PREFIX)
            }),
            ChangeKind::Changed { fields } => fields.iter().any(|field| field == name),
        }
    }

    /// The lowest number that no API key has, neither a stored nor a new one.
    fn free_api_key(&self, earlier: &[Field]) -> Option<FieldId> {
        let stored = self.current.map_or(&[][..], |entry| &entry.directory.fields);
        (0..FieldId::MAX_API_KEYS)
            .map(|offset| FieldId(FieldId::API_KEYS.0 + offset))
            .find(|id| stored.iter().chain(earlier).all(|field| field.id != *id))
    }

    fn version(&self) -> u64 {
        self.current.map_or(0, |entry| entry.directory.version) + 1
    }

    fn too_large(&self, field: &str) -> Error {
        Error::TooLarge { tenant: self.id.clone(), field: field.to_owned() }
    }
}

/// The secrets by field name. An empty API key is none.
fn secrets(credentials: &Credentials) -> BTreeMap<String, &SecretText> {
    let Credentials { db_password, db_sslkey, api_keys } = credentials;
    let password = db_password.iter().map(|secret| (DB_PASSWORD.to_owned(), secret));
    let key = db_sslkey.iter().map(|secret| (DB_SSLKEY.to_owned(), secret));
    let keys = api_keys
        .iter()
        .filter(|(_, secret)| !secret_bytes(secret).is_empty())
        .map(|(provider, secret)| (format!("{API_KEYS_PREFIX}{provider}"), secret));
    password.chain(key).chain(keys).collect()
}

/// What is public and has records of its own.
fn certificates(config: &TenantConfig) -> [(FieldId, &'static str, Option<&str>); 2] {
    let (roots, client) = match &config.connection {
        Connection::Postgres(target) => {
            (target.root_certificates.as_deref(), target.client_certificate.as_deref())
        }
        Connection::Sqlite { .. } => (None, None),
    };
    [
        (FieldId::CERTIFICATES, CERTIFICATES, roots),
        (FieldId::CLIENT_CERTIFICATE, CLIENT_CERTIFICATE, client),
    ]
}

/// Every field of `config` but its id, as the tenant file calls it, in a form that can be compared.
fn describe(config: &TenantConfig) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut field = |name: &str, value: String| fields.insert(name.to_owned(), value);
    let TenantConfig { id: _, connection, access, limits, quotas, features } = config;
    field("db_engine", connection.engine().to_owned());
    match connection {
        Connection::Postgres(target) => {
            let PostgresTarget {
                host,
                port,
                database,
                user,
                tls,
                root_certificates,
                client_certificate,
                schema,
                tenant_variable,
            } = target;
            field("db_host", host.clone());
            field("db_port", port.to_string());
            field("db_name", database.clone());
            field("db_user", user.clone());
            field("db_sslmode", tls.as_str().to_owned());
            if let Some(pem) = root_certificates {
                field(CERTIFICATES, pem.clone());
            }
            if let Some(pem) = client_certificate {
                field(CLIENT_CERTIFICATE, pem.clone());
            }
            field("db_schema", schema.clone());
            if let Some(variable) = tenant_variable {
                field("db_tenant_variable", variable.clone());
            }
        }
        Connection::Sqlite { path } => {
            field("db_path", path.clone());
        }
    }
    let Access { mode, tables, deny_columns } = access;
    field("access.mode", mode.as_str().to_owned());
    field("access.tables", format!("{tables:?}"));
    field("access.deny_columns", format!("{deny_columns:?}"));
    let Limits { statement_timeout, max_rows, max_result_bytes } = limits;
    field("limits.statement_timeout_ms", format!("{statement_timeout:?}"));
    field("limits.max_rows", max_rows.to_string());
    field("limits.max_result_bytes", max_result_bytes.to_string());
    for (name, limit) in quotas.named() {
        field(&format!("quotas.{name}"), format!("{limit:?}"));
    }
    for (name, enabled) in features {
        field(&format!("features.{name}"), enabled.to_string());
    }
    fields
}
