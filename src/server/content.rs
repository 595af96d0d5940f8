//! The content of one resource, as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use super::listing::Kind;
use super::{Caller, Error, Failure, Instances, QueryArguments, Retry, TenantContext};
use crate::database::{ForeignKey, Relation, RelationColumn, RelationKind};
use crate::quota::Permit;
use crate::tenant::{Permission, RelationName, Resource, ResourceUri};

/// Rows of the sample in a table's content.
const SAMPLE: u32 = 5;

/// What `resources/read` tells about a table or view.
#[derive(Serialize)]
struct RelationContent {
    uri: String,
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    columns: Vec<ColumnContent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    primary_key: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unique_keys: Vec<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    foreign_keys: Vec<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_rows: Option<u64>,
}

#[derive(Serialize)]
struct ColumnContent {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    nullable: bool,
    has_default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl From<RelationColumn> for ColumnContent {
    fn from(column: RelationColumn) -> Self {
        let RelationColumn { name, type_name, nullable, has_default, description } = column;
        Self { name, type_name, nullable, has_default, description }
    }
}

#[derive(Serialize)]
struct Reference {
    columns: Vec<String>,
    references: Referenced,
}

#[derive(Serialize)]
struct Referenced {
    uri: String,
    columns: Vec<String>,
}

/// Of one schema, how much there is.
#[derive(Serialize)]
struct SchemaContent {
    name: String,
    tables: u64,
    views: u64,
}

impl TenantContext {
    /// `resources/read`: a description of the resource as JSON. A table or view comes with a few of
    /// its rows for a caller who may query.
    pub(super) async fn read(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        uri: &str,
    ) -> Result<Value, Failure> {
        let mut call = self.begin(caller, "resources/read", Permission::List);
        let result = async {
            let scoped = call.admit_uri(uri)?;
            call.check_permission()?;
            match scoped.resource() {
                Resource::Api { provider } => {
                    let key = self.api_keys.iter().find(|key| key.provider == *provider);
                    let key = key.ok_or(Error::ResourceNotFound)?;
                    Ok(json!({
                        "uri": uri, "type": "api", "provider": key.provider,
                        "set_at": key.set_at.to_string(), "fingerprint": key.fingerprint,
                    }))
                }
                Resource::Database => {
                    let permit = call.acquire_permit()?;
                    self.database_content(instances, &permit, uri).await
                }
                Resource::Table(name) | Resource::View(name) => {
                    let (permit, kind) = (call.acquire_permit()?, kind_of(scoped.resource()));
                    let relation = self.relation(instances, &permit, name, kind).await?;
                    let mut content = json!({ "resource": null });
                    let may_query = caller.permissions.include(Permission::Query);
                    if may_query && !relation.columns.is_empty() {
                        let sample = sample_of(uri, &relation);
                        let sample = call.admit_counted(permit, &scoped, sample)?;
                        let answer = self.run(instances, &sample).await?;
                        content["sample_rows"] = json!(answer.rows.to_values());
                    }
                    content["resource"] = json!(self.relation_content(relation));
                    Ok(content)
                }
            }
        };
        let result = result.await;
        let rows = |content: &Value| Some(content["sample_rows"].as_array()?.len() as u64);
        call.finish(result, rows).await
    }

    /// The relation of this name and kind.
    ///
    /// # Errors
    ///
    /// [`Error::ResourceNotFound`] when there is none that `access` allows.
    pub(super) async fn relation(
        &self,
        instances: &mut impl Instances,
        permit: &Permit,
        name: &RelationName,
        kind: Option<RelationKind>,
    ) -> Result<Relation, Error> {
        let name = self.listed_name(name);
        let names = std::slice::from_ref(&name);
        let access = &self.config.access;
        let mut retry = Retry::default();
        let found = loop {
            let found = self.lease(instances, permit).await?.session.describe(access, names).await;
            let found = found.map_err(Error::from);
            if !retry.is_due(&found) {
                break found?;
            }
        };
        found
            .into_iter()
            .find(|relation| relation.name == name && Some(relation.kind) == kind)
            .ok_or(Error::ResourceNotFound)
    }

    /// How much there is in each schema, and the first page of it.
    async fn database_content(
        &self,
        instances: &mut impl Instances,
        permit: &Permit,
        uri: &str,
    ) -> Result<Value, Error> {
        let access = &self.config.access;
        let mut retry = Retry::default();
        let (page, catalogue) = loop {
            let mut server = self.lease(instances, permit).await?;
            let page = self.page(&mut server, Kind::Database, None).await;
            if !retry.is_due(&page) {
                break (page?, server.session.catalogue(access).await?);
            }
        };
        let mut schemas: Vec<SchemaContent> = Vec::new();
        for listed in catalogue.relations() {
            let name = listed.name.schema.as_deref().unwrap_or(self.schema());
            if schemas.last().is_none_or(|last| last.name != name) {
                schemas.push(SchemaContent { name: name.to_owned(), tables: 0, views: 0 });
            }
            if let Some(last) = schemas.last_mut() {
                match listed.kind {
                    RelationKind::Table => last.tables += 1,
                    RelationKind::View => last.views += 1,
                }
            }
        }
        let mut content = json!({
            "uri": uri, "type": "database", "engine": self.config.connection.engine(),
            "schemas": schemas, "resources": page.resources,
        });
        if let Some(cursor) = page.next_cursor {
            content["next_cursor"] = json!(cursor);
            content["more"] = json!("resources/list with next_cursor as its cursor goes on");
        }
        Ok(content)
    }

    fn relation_content(&self, relation: Relation) -> RelationContent {
        let resource = relation.kind.resource(relation.name.clone());
        let reference = |key: ForeignKey| {
            let resource = Resource::Table(key.relation);
            self.has_uri(&resource).then(|| Reference {
                columns: key.columns,
                references: Referenced {
                    uri: ResourceUri::of(self.tenant(), &resource).to_string(),
                    columns: key.referenced,
                },
            })
        };
        RelationContent {
            uri: ResourceUri::of(self.tenant(), &resource).to_string(),
            kind: relation.kind.as_str(),
            name: relation.name.to_string(),
            description: relation.description,
            columns: relation.columns.into_iter().map(ColumnContent::from).collect(),
            primary_key: relation.primary_key,
            unique_keys: relation.unique_keys,
            foreign_keys: relation.foreign_keys.into_iter().filter_map(reference).collect(),
            estimated_rows: relation.estimated_rows,
        }
    }
}

/// Which kind of relation `resource` is.
pub(super) fn kind_of(resource: &Resource) -> Option<RelationKind> {
    match resource {
        Resource::Table(_) => Some(RelationKind::Table),
        Resource::View(_) => Some(RelationKind::View),
        Resource::Api { .. } | Resource::Database => None,
    }
}

/// A name in quotes, as both engines read it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `relation` in quotes.
pub(super) fn quoted_relation(relation: &RelationName) -> String {
    let schema = relation.schema.as_deref().map(|schema| format!("{}.", quoted(schema)));
    format!("{}{}", schema.unwrap_or_default(), quoted(&relation.name))
}

/// The statement that reads a few rows of `relation`, column by column so that denied ones stay out.
fn sample_of(uri: &str, relation: &Relation) -> QueryArguments {
    let columns: Vec<_> = relation.columns.iter().map(|column| quoted(&column.name)).collect();
    let table = quoted_relation(&relation.name);
    let query = format!("SELECT {} FROM {table} LIMIT {SAMPLE}", columns.join(", "));
    QueryArguments::new(uri, &query, Some(SAMPLE))
}
