//! What a tenant has, in pages, and the content of one resource.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::json;

use super::call::Call;
use super::tools::{ColumnInfo, LIST, ListArguments};
use super::{ApiKey, Caller, Error, Failure, Instances, QueryArguments, TenantContext};
use crate::database::{Relation, RelationKind};
use crate::tenant::{Permission, RelationName, Resource, ResourceUri};

/// Resources on one page.
const PAGE: usize = 100;
/// Rows of the sample in a table's content.
const SAMPLE: u32 = 5;

/// One page of resources.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ListAnswer {
    /// In a stable order: the database, its tables and views by name, then outside services.
    pub resources: Vec<ResourceInfo>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One resource.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ResourceInfo {
    /// For `query_tenant_data` and `resources/read`.
    pub uri: String,
    /// `database`, `table`, `view` or `api`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The last part of the URI, decoded.
    pub name: String,
    /// Of a table or view, its comment in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of a table or view; denied columns are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnInfo>>,
}

/// Which resources are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    All,
    Api,
    Database,
    Table,
    View,
}

impl Kind {
    fn parse(text: Option<&str>) -> Result<Self, Error> {
        match text {
            None => Ok(Self::All),
            Some("api") => Ok(Self::Api),
            Some("database") => Ok(Self::Database),
            Some("table") => Ok(Self::Table),
            Some("view") => Ok(Self::View),
            Some(_) => {
                let message = "resource_type must be one of database, table, view, api";
                Err(Error::Argument(message.to_owned()))
            }
        }
    }
}

impl TenantContext {
    /// The tool `list_tenant_resources`, and `resources/list` as `action`.
    pub(super) async fn list(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        action: &'static str,
        arguments: Result<ListArguments, Error>,
    ) -> Result<ListAnswer, Failure> {
        let mut call = self.begin(caller, action, Permission::List);
        let result = async {
            let arguments = arguments?;
            call.check_permission()?;
            let kind = Kind::parse(arguments.resource_type.as_deref())?;
            let after = match &arguments.cursor {
                // A cursor is the URI that the page before ended with, so it is scoped like one.
                Some(cursor) => {
                    let uri = decode_cursor(cursor)?;
                    call.admit_uri(&uri)?;
                    Some(uri)
                }
                None => None,
            };
            let _permit = call.acquire_permit()?;
            let resources = self.resources(instances, kind).await?;
            page(resources, after.as_deref())
        };
        let result = result.await;
        call.finish(result, |answer| Some(answer.resources.len() as u64)).await
    }

    /// Every page of `list_tenant_resources` at once.
    pub(super) async fn list_all(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        resource_type: Option<&str>,
    ) -> Result<Vec<ResourceInfo>, Failure> {
        let call = self.begin(caller, LIST, Permission::List);
        let result = async {
            call.check_permission()?;
            let kind = Kind::parse(resource_type)?;
            let _permit = call.acquire_permit()?;
            self.resources(instances, kind).await
        };
        let result = result.await;
        call.finish(result, |resources| Some(resources.len() as u64)).await
    }

    /// `resources/read`: a description of the resource as JSON. A table or view comes with a few of
    /// its rows for a caller who may query.
    pub(super) async fn read(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        uri: &str,
    ) -> Result<serde_json::Value, Failure> {
        let mut call = self.begin(caller, "resources/read", Permission::List);
        let may_query = caller.permissions.include(Permission::Query);
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
                    let _permit = call.acquire_permit()?;
                    let relations = self.resources(instances, Kind::Database).await?;
                    Ok(json!({ "uri": uri, "type": "database", "resources": relations }))
                }
                Resource::Table(name) => {
                    self.read_relation(
                        &mut call,
                        instances,
                        uri,
                        name,
                        RelationKind::Table,
                        may_query,
                    )
                    .await
                }
                Resource::View(name) => {
                    self.read_relation(
                        &mut call,
                        instances,
                        uri,
                        name,
                        RelationKind::View,
                        may_query,
                    )
                    .await
                }
            }
        };
        let result = result.await;
        let rows =
            |content: &serde_json::Value| Some(content["sample_rows"].as_array()?.len() as u64);
        call.finish(result, rows).await
    }

    async fn read_relation(
        &self,
        call: &mut Call<'_>,
        instances: &mut impl Instances,
        uri: &str,
        name: &RelationName,
        kind: RelationKind,
        may_query: bool,
    ) -> Result<serde_json::Value, Error> {
        let relations = {
            let _permit = call.acquire_permit()?;
            instances.lease().await?.session.relations(&self.config.access).await?
        };
        let relation = relations
            .into_iter()
            .find(|relation| relation.name == *name && relation.kind == kind)
            .ok_or(Error::ResourceNotFound)?;
        let mut content = json!({ "resource": null });
        if may_query {
            let sample = call.admit_query(sample_of(uri, &relation))?;
            content["sample_rows"] =
                json!(instances.lease().await?.run(&sample).await?.rows.to_values());
        }
        content["resource"] = json!(self.describe_relation(relation));
        Ok(content)
    }

    async fn resources(
        &self,
        instances: &mut impl Instances,
        kind: Kind,
    ) -> Result<Vec<ResourceInfo>, Error> {
        let mut resources = Vec::new();
        if matches!(kind, Kind::All | Kind::Database) {
            resources.push(ResourceInfo {
                uri: ResourceUri::of(self.tenant(), &Resource::Database).to_string(),
                kind: "database",
                name: "database".to_owned(),
                description: Some(format!("{} database", self.config.connection.engine())),
                columns: None,
            });
        }
        if kind != Kind::Api {
            let relations = instances.lease().await?.session.relations(&self.config.access).await?;
            let wanted = relations.into_iter().filter(|relation| match kind {
                Kind::Table => relation.kind == RelationKind::Table,
                Kind::View => relation.kind == RelationKind::View,
                Kind::All | Kind::Api | Kind::Database => true,
            });
            resources.extend(wanted.map(|relation| self.describe_relation(relation)));
        }
        if matches!(kind, Kind::All | Kind::Api) {
            resources.extend(self.api_keys.iter().map(|key| self.describe_api(key)));
        }
        Ok(resources)
    }

    fn describe_relation(&self, relation: Relation) -> ResourceInfo {
        let (kind, resource) = match relation.kind {
            RelationKind::Table => ("table", Resource::Table(relation.name.clone())),
            RelationKind::View => ("view", Resource::View(relation.name.clone())),
        };
        ResourceInfo {
            uri: ResourceUri::of(self.tenant(), &resource).to_string(),
            kind,
            name: relation.name.to_string(),
            description: relation.description,
            columns: Some(relation.columns.into_iter().map(ColumnInfo::from).collect()),
        }
    }

    fn describe_api(&self, key: &ApiKey) -> ResourceInfo {
        let resource = Resource::Api { provider: key.provider.clone() };
        ResourceInfo {
            uri: ResourceUri::of(self.tenant(), &resource).to_string(),
            kind: "api",
            name: key.provider.clone(),
            description: Some("a key is set".to_owned()),
            columns: None,
        }
    }
}

/// The page of `resources` that follows the resource with the URI `after`.
///
/// # Errors
///
/// [`Error::Argument`] when that resource is gone: to begin again unasked could go on for ever.
fn page(resources: Vec<ResourceInfo>, after: Option<&str>) -> Result<ListAnswer, Error> {
    let begin = match after {
        None => 0,
        Some(after) => {
            let last = resources.iter().position(|resource| resource.uri == after);
            let gone = || Error::Argument("cursor is out of date; list from the start".to_owned());
            last.ok_or_else(gone)? + 1
        }
    };
    let has_more = resources.len() > begin + PAGE;
    let resources: Vec<_> = resources.into_iter().skip(begin).take(PAGE).collect();
    let last = resources.last().filter(|_| has_more);
    let next_cursor = last.map(|last| URL_SAFE_NO_PAD.encode(&last.uri));
    Ok(ListAnswer { resources, next_cursor })
}

fn decode_cursor(cursor: &str) -> Result<String, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Error::Argument("cursor is not one that was given out".to_owned()))
}

/// The statement that reads a few rows of `relation`, column by column so that denied ones stay out.
fn sample_of(uri: &str, relation: &Relation) -> QueryArguments {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<_> = relation.columns.iter().map(|column| quote(&column.name)).collect();
    let schema = relation.name.schema.as_deref().map(|schema| format!("{}.", quote(schema)));
    let table = format!("{}{}", schema.unwrap_or_default(), quote(&relation.name.name));
    let query = format!("SELECT {} FROM {table} LIMIT {SAMPLE}", columns.join(", "));
    QueryArguments::new(uri, &query, Some(SAMPLE))
}
